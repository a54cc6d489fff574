package bridge

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"holdfast"
)

// text is an Upstream that carries up to ten bytes of text, and no others.
type text struct{ *fakeUpstream }

func (text) Carries(msg *holdfast.Message) error {
	switch {
	case bytes.ContainsRune(msg.Payload, 0):
		return fmt.Errorf("it is binary: %w", holdfast.ErrRefused)
	case len(msg.Payload) > 10:
		return fmt.Errorf("it is long: %w", holdfast.ErrTooLarge)
	}
	return nil
}

func (u text) Publish(msg *holdfast.Message, again bool, done func(error)) {
	if err := u.Carries(msg); err != nil {
		u.broker.story.add("cannot publish %q", msg.Payload)
		done(err)
		return
	}
	u.fakeUpstream.Publish(msg, again, done)
}

// texts makes connections that carry text only.
func texts(b *fakeBroker) Connect {
	return func(ctx context.Context, r Receive) (Upstream, error) {
		u, err := b.Connect(ctx, r)
		if err != nil {
			return nil, err
		}
		return text{u.(*fakeUpstream)}, nil
	}
}

func acknowledge(_ *fakeUpstream, _ *holdfast.Message, done func(error)) { done(nil) }

// push queues messages of the route r with these payloads.
func (w *world) push(payloads ...string) {
	w.q.mu.Lock()
	for _, p := range payloads {
		w.q.last++
		w.q.waiting = append(w.q.waiting, holdfast.Item{ID: holdfast.NewItemID(holdfast.Normal, w.q.last), Route: "r",
			Msg: &holdfast.Message{Topic: "t/x", Payload: []byte(p), QoS: 1}})
	}
	w.q.mu.Unlock()
	signal(w.q.ready)
}

func TestAPayloadThatTheWayCannotCarryGoesInBase64OrIntoQuarantine(t *testing.T) {
	for _, test := range []struct {
		encoding Encoding
		want     []string
	}{
		{AsIs, []string{
			"publish text", "ack 1",
			`cannot publish "b\x00b"`, "quarantine 2: refused",
			`cannot publish "b\x00bbbbbbb"`, "quarantine 3: refused",
			`cannot publish "text that is long"`, "quarantine 4: too large",
			"publish end", "ack 5",
		}},
		{Base64, []string{
			"publish text", "ack 1",
			"publish YgBi", "ack 2",
			`cannot publish "YgBiYmJiYmJi"`, "quarantine 3: too large",
			`cannot publish "dGV4dCB0aGF0IGlzIGxvbmc="`, "quarantine 4: too large",
			"publish end", "ack 5",
		}},
		{Base64Always, []string{
			"publish dGV4dA==", "ack 1",
			"publish YgBi", "ack 2",
			`cannot publish "YgBiYmJiYmJi"`, "quarantine 3: too large",
			`cannot publish "dGV4dCB0aGF0IGlzIGxvbmc="`, "quarantine 4: too large",
			"publish ZW5k", "ack 5",
		}},
	} {
		t.Run(test.encoding.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				broker := &fakeBroker{onPublish: acknowledge}
				w := start(t, broker, func(o *Options) {
					o.Routes[0].Encoding = test.encoding
					o.Upstreams[0].Connect = texts(broker)
				})
				defer w.stop()
				after(time.Second)
				w.want(t, "connect")
				w.push("text", "b\x00b", "b\x00bbbbbbb", "text that is long", "end")
				after(time.Second)
				w.want(t, test.want...)
			})
		})
	}
}

// Over a way that carries everything, base64-always encodes and base64 does not.
func TestEncodingOverAWayThatCarriesEverything(t *testing.T) {
	for encoding, want := range map[Encoding]string{Base64: "publish b\x00", Base64Always: "publish YgA="} {
		synctest.Test(t, func(t *testing.T) {
			broker := &fakeBroker{onPublish: acknowledge}
			w := start(t, broker, func(o *Options) { o.Routes[0].Encoding = encoding })
			defer w.stop()
			w.push("b\x00")
			after(time.Second)
			w.want(t, "connect", want, "ack 1")
			if got := w.b.Status().Encoded; got != uint64(encoding-Base64) {
				t.Errorf("%v: %d counted", encoding, got)
			}
		})
	}
}

// An echo of an encoded message is known by what was sent.
func TestTheEchoOfAnEncodedMessageIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := &fakeBroker{onPublish: func(u *fakeUpstream, msg *holdfast.Message, done func(error)) {
			done(nil)
			u.receive(msg, false, func() {})
		}}
		w := start(t, broker, func(o *Options) {
			o.Routes[0].Direction, o.Routes[0].Encoding = Both, Base64Always
		})
		defer w.stop()
		w.push("b\x00")
		after(time.Second)
		if s := w.b.Status(); s.DroppedLoop != 1 || s.Received != 0 {
			t.Errorf("status %+v", s)
		}
	})
}
