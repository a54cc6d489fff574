package bridge

import (
	"fmt"

	"holdfast"
	"holdfast/edge/packet"
	"holdfast/edge/topic"
)

// Many at a time. What a message costs the processor is above all the goroutines and
// system calls that it wakes, so publishes go together in one write, and their answers
// are told together: the forwarder takes what the queue has and then lets it go, and
// the reader takes what has come and then tells of it.
const (
	// answersMost are told at a time.
	answersMost = 256
	// scratchKeep is the largest buffer for one packet that is kept.
	scratchKeep = 16 << 10
)

// answer is the end of a publish of PublishMore.
type answer struct {
	f   *flight
	err error
}

// batch is what the reader has not told yet. Only it uses this, but for tell.
type batch struct {
	tell    func([]answer) // set before PublishMore is called
	answers []answer
}

// scratch is memory for one publish at a time, guarded by client.mu.
type scratch struct {
	p          packet.Publish
	topic, out []byte
	alias      packet.Properties // has nothing but an alias
}

// Answers is described at batcher.
func (u *client) Answers(tell func([]answer)) { u.batch.tell = tell }

// PublishMore is described at batcher.
func (u *client) PublishMore(f *flight) error {
	u.Begin(nil)
	msg := f.item.Msg
	if err := topic.ValidName(msg.Topic); err != nil {
		return fmt.Errorf("%w: %w", holdfast.ErrRefused, err)
	}
	props := u.propertiesOf(msg)
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return u.unknown()
	}
	x := &u.scratch
	x.topic = append(x.topic[:0], msg.Topic...)
	p := &x.p
	*p = packet.Publish{QoS: min(msg.QoS, u.maxQoS), Retain: msg.Retain && u.retains, Topic: x.topic, Payload: msg.Payload, Properties: props}
	if p.QoS == 2 && u.kept {
		p.QoS = 1 // see MQTT3Connect
	}
	f.out = outgoing{qos: p.QoS, flight: f}
	if p.QoS > 0 && u.inside >= u.window { // [MQTT-3.3.4-9]
		later := *p
		later.Topic = []byte(msg.Topic)
		u.held = append(u.held, heldPublish{&later, &f.out})
		return nil
	}
	err := u.publishLocked(p, &f.out)
	p.Payload, p.Properties = nil, nil
	return err
}

// Flush is described at batcher.
func (u *client) Flush() { u.link.Flush() }

// answer tells the end of a publish, together with those that have come with it.
func (u *client) answer(out *outgoing, err error) {
	if out.flight == nil {
		out.done(err)
		return
	}
	u.batch.answers = append(u.batch.answers, answer{out.flight, err})
	if len(u.batch.answers) >= answersMost {
		u.tellAnswers()
	}
}

// tellAnswers must be called before the reader waits for anything.
func (u *client) tellAnswers() {
	b := &u.batch
	if len(b.answers) == 0 {
		return
	}
	b.tell(b.answers)
	clear(b.answers)
	b.answers = b.answers[:0]
}
