package bridge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"testing"

	"holdfast"
	"holdfast/edge/packet"
)

// exactFake is an ExactQueue and an ExactLocal; what it is to save is saved when
// the test says so.
type exactFake struct {
	*fakeQueue
	*fakeLocal
	story *story
	far   holdfast.FarSession
	saves chan func(error)
}

func (q *exactFake) FarSession() holdfast.FarSession { return q.far }

func (q *exactFake) Take(holdfast.ItemID) (it holdfast.Item, ok bool, err error) {
	return it, false, nil
}

func (q *exactFake) ChangeFarSession(c *holdfast.FarSessionChange, done func(error)) {
	line := "save"
	if c.Begin != nil {
		line += " " + *c.Begin
	}
	for _, b := range c.Bind {
		line += fmt.Sprintf(" %d is %d", b.PacketID, b.Item.Position())
		if b.Received {
			line += ", received"
		}
	}
	for _, id := range c.ForgetInbound {
		line += fmt.Sprintf(" without %d", id)
	}
	q.story.add("%s", line)
	q.saves <- done
}

func (q *exactFake) PublishOnce(msg *holdfast.Message, id uint16, done func(error)) {
	q.story.add("local %s %d", msg.Payload, id)
	q.saves <- done
}

// tellWire tells in the story what comes over the wire.
func tellWire(s *story, far net.Conn, heard chan<- string) {
	l := newLink(far, 1000)
	defer l.Close()
	u := newClient(l, packet.V311, ignore, nil) // it only reads
	for {
		h, body, err := u.readPacket()
		if err != nil {
			close(heard)
			return
		}
		line := h.Type.String()
		switch h.Type {
		case packet.PUBLISH:
			var p packet.Publish
			if p.Decode(h.Flags, body, packet.V311) == nil {
				line += fmt.Sprintf(" %s %d", p.Payload, p.PacketID)
			}
		case packet.PUBREC, packet.PUBREL, packet.PUBCOMP, packet.PUBACK:
			line += fmt.Sprintf(" %d", body[1])
		}
		s.add("wire %s", line)
		heard <- line
	}
}

func TestNothingOfQoS2IsSentBeforeItIsSaved(t *testing.T) {
	noLeaks(t)
	s := &story{}
	q := &exactFake{newFakeQueue(s), &fakeLocal{story: s}, s, holdfast.FarSession{}, make(chan func(error), 10)}
	near, far := net.Pipe()
	heard := make(chan string, 100)
	b, err := New(Options{
		Name: "b", Queue: q, Local: q, FarSession: "far",
		Routes: []Route{{Filter: "t/#", QoS: 2}, {Direction: In, Filter: "down/#", QoS: 2}},
		Upstreams: []UpstreamOption{{Name: "u", Connect: MQTT3Connect(ClientOptions{URL: "tcp://far", ClientID: "gw", Exactly: true,
			Dial: func(context.Context, string, string) (net.Conn, error) { return near, nil }})}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = b.Run(ctx) }()
	go tellWire(s, far, heard)
	say := func(b ...byte) { _, _ = far.Write(b) }
	// expect waits until the wire has said it, behind all that was to come before.
	expect := func(want string) {
		t.Helper()
		if got := next(t, heard, want); got != want {
			t.Fatalf("the wire says %q, wanted %q", got, want)
		}
	}
	saved := func() {
		t.Helper()
		done := next(t, q.saves, "something to save")
		// Whatever was sent too early is before this answer.
		say(0x62, 2, 0, 99)
		expect("PUBCOMP 99")
		s.add("saved")
		done(nil)
	}
	expect("CONNECT")
	say(0x20, 2, 0, 0)
	next(t, q.saves, "the session")(nil)
	expect("SUBSCRIBE")
	say(0x90, 3, 1, 1, 2) // identifiers behind those of messages

	q.add(1, 2)
	saved()
	expect("PUBLISH 1 1")
	say(0x50, 2, 0, 1)
	saved()
	expect("PUBREL 1")
	say(0x70, 2, 0, 1)

	down := []byte{0x34, 11, 0, 6, 'd', 'o', 'w', 'n', '/', 'a', 0, 7, 'x'}
	say(down...)
	saved()
	expect("PUBREC 7")
	down[0] |= 8 // DUP
	say(down...)
	expect("PUBREC 7") // and the local broker gets no second one
	down[0] &^= 8
	say(0x62, 2, 0, 7)
	saved()
	expect("PUBCOMP 7")
	say(0x62, 2, 0, 7)
	expect("PUBCOMP 7")
	say(down...) // another message with the same identifier
	done := next(t, q.saves, "the next message")
	done(errors.New("the disk has failed"))
	next(t, q.saves, "another try")(nil)
	expect("PUBREC 7")
	say(down...) // without DUP: the far broker has begun anew
	next(t, q.saves, "what is no repetition")(nil)
	expect("PUBREC 7")
	cancel()
	<-ended
	far.Close()
	want := []string{
		"wire CONNECT", "save far", "wire SUBSCRIBE",
		"save 1 is 1", "saved", "wire PUBLISH 1 1", "save 1 is 1, received", "saved", "wire PUBREL 1", "ack 1",
		"local x 7", "saved", "wire PUBREC 7", "wire PUBREC 7", "save without 7", "saved", "wire PUBCOMP 7", "wire PUBCOMP 7",
		"local x 7", "local x 7", "wire PUBREC 7", "local x 7", "wire PUBREC 7", "wire DISCONNECT",
	}
	got := slices.DeleteFunc(s.take(), func(l string) bool { return l == "wire PUBCOMP 99" })
	if !slices.Equal(got, want) {
		t.Errorf("happened\n %q\nwanted\n %q", got, want)
	}
}
