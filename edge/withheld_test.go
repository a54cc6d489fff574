package edge

import (
	"testing"

	"holdfast"
	"holdfast/edge/packet"
)

// withoutX lets in everyone, for everything but to receive x.
type withoutX struct{ Access }

func (withoutX) Connect(*Login, <-chan struct{}) (Rights, error) { return withoutX{}, nil }
func (withoutX) Publish(string) bool                             { return true }
func (withoutX) Subscribe(string) bool                           { return true }
func (withoutX) Receive(name string) bool                        { return name != "x" }

// So many messages were set aside that nothing more is taken from the queue, and
// they have expired meanwhile.
func TestWhatIsBehindExpiredWithheldMessagesComesAfterAPing(t *testing.T) {
	inTime(t, func(b *timed) {
		forLong := func(p *packet.Connect) {
			p.CleanStart, p.Properties = false, &packet.Properties{SessionExpiry: 1 << 20, HasSessionExpiry: true}
		}
		dev, _ := b.connect("dev", forLong)
		dev.subscribe(1, "#", 1)
		b.drop(dev)
		p, _ := b.connect("pub")
		for range withheldMessages {
			p.publish("x", "not for it", 1, 1, func(m *packet.Publish) {
				m.Properties = &packet.Properties{Message: holdfast.Properties{Expiry: 30, HasExpiry: true}}
			})
			p.expectAck(packet.PUBACK, 1)
		}
		p.publish("y", "for it", 1, 1)
		p.expectAck(packet.PUBACK, 1)
		b.srv.opts.Access = withoutX{}
		dev, _ = b.connect("dev", forLong)
		dev.expectNothing()
		b.pass(withheldFor)
		dev.raw(packet.AppendPingreq(nil))
		dev.expect(packet.PINGRESP)
		dev.expectPublish("y", "for it", 1)
	})
}
