package edge

import (
	"testing"

	"holdfast"
	"holdfast/edge/packet"
)

// via puts into a PUBLISH that it has passed these gateways.
func via(ids ...string) func(*packet.Publish) {
	return func(p *packet.Publish) {
		p.Properties = new(packet.Properties)
		for _, id := range ids {
			p.Properties.Message.User = append(p.Properties.Message.User, holdfast.UserProperty{Name: holdfast.PropertyVia, Value: id})
		}
	}
}

// What this gateway has passed on, and the bridge of another one sends back, is
// acknowledged, so that it does not come again, and nobody gets it.
func TestWhatComesBackFromAnotherGatewayGoesNowhere(t *testing.T) {
	b := startBroker(t, newFakeDisk(), func(o *Options) { o.GatewayID = "gw" })
	sub := b.connect("sub")
	sub.subscribe(1, "#", 2)
	c := b.connect("far", v5)
	c.publish("t", "0", 0, 0, via("x", "gw"))
	c.publish("t", "1", 1, 1, via("gw", "x"))
	c.expectAck(packet.PUBACK, 1)
	c.publish("t", "2", 2, 2, via("gw"))
	c.expectAck(packet.PUBREC, 2)
	c.ack(packet.PUBREL, 2)
	c.expectAck(packet.PUBCOMP, 2)
	c.publish("t", "other", 1, 3, via("gw2", "x"))
	sub.expectPublish("t", "other", 1)
	if n := b.srv.Stats().DroppedLoop; n != 3 {
		t.Errorf("%d are counted", n)
	}
}

func TestTheBrokerOfAGatewaySaysWhichOneItIs(t *testing.T) {
	b := startBroker(t, newFakeDisk(), func(o *Options) { o.GatewayID = "gw" })
	u := b.dial().greet("c").Properties.Message.User
	if len(u) != 1 || u[0] != (holdfast.UserProperty{Name: holdfast.PropertyGateway, Value: "gw"}) {
		t.Errorf("it says %v", u)
	}
	a := b.dial().greet("small", with5(packet.Properties{MaximumPacketSize: 60}))
	if u := a.Properties.Message.User; len(u) != 0 { // [MQTT-3.2.2-20]
		t.Errorf("a client that takes small packets only is told %v", u)
	}
}
