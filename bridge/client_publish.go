package bridge

import (
	"errors"
	"fmt"

	"holdfast"
	"holdfast/edge/packet"
	"holdfast/edge/topic"
)

// Publish is described at Upstream.
func (u *client) Publish(msg *holdfast.Message, _ bool, done func(error)) {
	u.Begin(nil)
	p, err := u.packetOf(msg)
	if err == nil {
		if p.QoS == 2 && u.kept {
			p.QoS = 1 // see MQTT3Connect
		}
		err = u.publish(p, &outgoing{qos: p.QoS, done: done})
	}
	if err != nil {
		done(err)
	}
}

// packetOf is msg as it is sent.
func (u *client) packetOf(msg *holdfast.Message) (*packet.Publish, error) {
	if err := topic.ValidName(msg.Topic); err != nil {
		return nil, fmt.Errorf("%w: %w", holdfast.ErrRefused, err)
	}
	p := packet.Publish{QoS: min(msg.QoS, u.maxQoS), Retain: msg.Retain && u.retains, Topic: []byte(msg.Topic), Payload: msg.Payload}
	p.Properties = u.propertiesOf(msg)
	return &p, nil
}

func (u *client) propertiesOf(msg *holdfast.Message) *packet.Properties {
	if u.version != packet.V5 || msg.Properties == nil {
		return nil
	}
	p := new(packet.Properties)
	p.FromMessage(msg.Properties)
	p.Message.SubscriptionIDs = nil // [MQTT-3.3.4-6]
	return p
}

func (u *client) publish(p *packet.Publish, out *outgoing) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return u.unknown()
	}
	if p.QoS > 0 && u.inside >= u.window { // [MQTT-3.3.4-9]
		u.held = append(u.held, heldPublish{p, out})
		return nil
	}
	return u.publishLocked(p, out)
}

func (u *client) publishLocked(p *packet.Publish, out *outgoing) error {
	if p.QoS > 0 && p.PacketID == 0 {
		if p.PacketID = u.idLocked(); p.PacketID == 0 {
			return errors.New("all packet identifiers are in use") // beyond every window
		}
	}
	n := p.Size(u.version)
	if n > packet.MaxRemaining {
		return fmt.Errorf("%w: %d bytes, MQTT carries %d", holdfast.ErrTooLarge, n, packet.MaxRemaining)
	}
	if u.maxSize > 0 && n > u.maxSize { // without an alias: the size must not depend on what went before
		return fmt.Errorf("%w: %d bytes, the far broker takes %d", holdfast.ErrTooLarge, n, u.maxSize)
	}
	b, err := u.appendLocked(u.scratch.out[:0], p)
	if err != nil {
		return fmt.Errorf("%w: %w", holdfast.ErrRefused, err)
	}
	if u.scratch.out = b[:0]; cap(b) > scratchKeep {
		u.scratch.out = nil
	}
	if p.QoS > 0 {
		u.pending[p.PacketID] = out
		u.inside++
	}
	u.sendLocked(b, out.flight != nil)
	if p.QoS > 0 {
		return nil
	}
	done := out.done
	if done == nil {
		done = func(err error) { u.end(out, err) }
	}
	if !u.written.push(done) { // the link has ended, and the teller with it
		return u.unknown()
	}
	return nil
}

// appendLocked appends p as it is sent, with an alias if there is one for its topic.
func (u *client) appendLocked(dst []byte, p *packet.Publish) ([]byte, error) {
	id, told := u.aliases.of(p.Topic)
	if id == 0 {
		return p.Append(dst, u.version)
	}
	topic, plain := p.Topic, p.Properties
	if told {
		p.Topic = nil
	}
	if p.Properties == nil {
		p.Properties = &u.scratch.alias
	}
	p.Properties.TopicAlias = id
	if b, err := p.Append(dst, u.version); err == nil && (u.maxSize == 0 || len(b) <= u.maxSize) {
		return b, nil
	}
	u.aliases.drop(topic) // the broker never heard of it
	if p.Topic, p.Properties = topic, plain; plain != nil {
		plain.TopicAlias = 0
	}
	return p.Append(dst, u.version)
}
