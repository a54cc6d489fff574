package bridge

import (
	"holdfast"
	"holdfast/edge/packet"
)

// Exactly is described at exactUpstream.
func (u *client) Exactly() (ok, present bool) { return u.exact && u.maxQoS == 2, u.present }

// Begin is described at exactUpstream.
func (u *client) Begin(in inbox) {
	u.decide.Do(func() {
		u.inbox = in
		close(u.decided)
	})
}

// arrivedExactly is a PUBLISH of QoS 2, and releasedExactly a PUBREL, if u.exact.
func (u *client) arrivedExactly(id uint16, msg *holdfast.Message, again bool) {
	if u.inboxReady() {
		u.inbox.arrived(id, msg, again, func() { u.acknowledge(packet.PUBREC, id) })
	}
}

func (u *client) releasedExactly(id uint16) {
	if u.inboxReady() {
		u.inbox.released(id, func() { u.acknowledge(packet.PUBCOMP, id) })
	}
}

// inboxReady waits until it is known whether there is an inbox.
func (u *client) inboxReady() bool {
	select {
	case <-u.decided:
		return u.inbox != nil
	case <-u.link.lost:
		return false
	}
}

// PublishExactly is described at exactUpstream.
func (u *client) PublishExactly(id uint16, msg *holdfast.Message, again bool, received func(error)) {
	p, err := u.packetOf(msg)
	if err == nil {
		p.QoS, p.PacketID, p.Dup = 2, id, again
		err = u.publish(p, &outgoing{qos: 2, received: received, again: again})
	}
	if err != nil {
		received(err)
	}
}

// Release is described at exactUpstream.
func (u *client) Release(id uint16, done func(error)) {
	u.mu.Lock()
	if u.ended {
		u.mu.Unlock()
		done(u.unknown())
		return
	}
	defer u.mu.Unlock()
	out := u.pending[id]
	if out == nil {
		out = &outgoing{qos: 2, outside: true}
		u.pending[id] = out
	}
	out.stage, out.done = released, done
	u.sendAckLocked(packet.PUBREL, id)
}
