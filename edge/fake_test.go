package edge

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"holdfast"
)

// fakeDisk is a Sink and a Store in memory whose commits a test can hold back,
// fail, and look at. A broker made on the same fakeDisk after another has ended
// sees what was committed: that is a restart.
type fakeDisk struct {
	mu       sync.Mutex
	sessions map[string]*holdfast.SessionState
	boxes    map[string]*fakeBox
	wills    map[string]*holdfast.Will
	retained map[string]*holdfast.Message
	left     map[string]time.Time // when a session was saved last
	accepted []*holdfast.Message  // what the Sink took, in order

	held     bool     // commits wait for letGo
	queue    []func() // held commits
	refuse   error    // what Accept answers at once
	unrouted bool     // no bridge wants anything
	fail     error    // what commits answer
	largest  int      // the most bytes of messages that one change had
	full     bool     // no queue has room: copies of retained messages are left out
}

func newFakeDisk() *fakeDisk {
	return &fakeDisk{
		sessions: map[string]*holdfast.SessionState{}, boxes: map[string]*fakeBox{},
		wills: map[string]*holdfast.Will{}, retained: map[string]*holdfast.Message{}, left: map[string]time.Time{},
	}
}

// commit runs apply and done now, or when the test lets go.
func (d *fakeDisk) commit(apply func(), done func(error)) {
	d.mu.Lock()
	step := func() {
		d.mu.Lock()
		err := d.fail
		if err == nil {
			apply()
		}
		d.mu.Unlock()
		done(err)
	}
	if d.held {
		d.queue = append(d.queue, step)
		d.mu.Unlock()
		return
	}
	d.mu.Unlock()
	step()
}

func (d *fakeDisk) hold() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held = true
}

// letGo runs the commits that were held back, in the given order of indices or
// all in their own.
func (d *fakeDisk) letGo(order ...int) {
	d.mu.Lock()
	d.held = false
	queue := d.queue
	d.queue = nil
	d.mu.Unlock()
	if order == nil {
		for _, step := range queue {
			step()
		}
	}
	for _, i := range order {
		queue[i]()
	}
}

// step runs one commit that was held back; the others stay held.
func (d *fakeDisk) step(i int) {
	d.mu.Lock()
	step := d.queue[i]
	d.queue = slices.Delete(d.queue, i, i+1)
	d.mu.Unlock()
	step()
}

func (d *fakeDisk) waiting() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.queue)
}

func (d *fakeDisk) set(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

func (d *fakeDisk) Accept(p *holdfast.Publication, done func(error)) error {
	d.mu.Lock()
	if d.refuse != nil {
		defer d.mu.Unlock()
		return d.refuse
	}
	d.accepted = append(d.accepted, p.Msg)
	p.Unrouted = d.unrouted
	for _, s := range p.Sessions {
		d.boxLocked(s.ClientID).push(withDelivery(p.Msg, s.QoS, s.Retain).WithSubscriptionIDs(s.SubscriptionIDs), true)
	}
	d.mu.Unlock()
	d.commit(func() {
		if p.Msg.Retain && len(p.Msg.Payload) == 0 {
			delete(d.retained, p.Msg.Topic)
		} else if p.Msg.Retain {
			d.retained[p.Msg.Topic] = p.Msg
		}
		if p.Inbound != nil {
			st := d.sessions[p.Inbound.ClientID]
			st.Inbound = append(st.Inbound, p.Inbound.PacketID)
		}
		delete(d.wills, p.WillOf)
	}, done)
	return nil
}

func (d *fakeDisk) boxLocked(id string) *fakeBox {
	if d.boxes[id] == nil {
		d.boxes[id] = &fakeBox{memoryOutbox: newMemoryOutbox(1 << 30), disk: d, clientID: id}
	}
	return d.boxes[id]
}

func (d *fakeDisk) Outbox(id string) (Outbox, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.boxLocked(id), nil
}

func (d *fakeDisk) Sessions() (out []holdfast.SessionState, _ error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.sessions {
		st := *s
		if st.Detached {
			st.Away = time.Since(d.left[s.ClientID])
		}
		out = append(out, st)
	}
	return out, nil
}

func (d *fakeDisk) Wills() (map[string]*holdfast.Will, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.wills), nil
}

func (d *fakeDisk) Retained() ([]*holdfast.Message, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Values(d.retained)), nil
}

func (d *fakeDisk) Change(c *holdfast.SessionChange, done func(error)) {
	d.mu.Lock()
	if c.Reset {
		delete(d.boxes, c.ClientID)
	}
	size := 0
	for _, m := range c.Append {
		size += m.Size()
		d.largest = max(d.largest, size)
		if d.full && !c.Moved {
			continue // there is no room for what is only a copy
		}
		d.boxLocked(c.ClientID).push(m, true)
	}
	d.mu.Unlock()
	d.commit(func() {
		if c.Reset {
			delete(d.sessions, c.ClientID)
		}
		st := d.sessions[c.ClientID]
		if c.Save != nil {
			if st == nil {
				st = &holdfast.SessionState{ClientID: c.ClientID}
				d.sessions[c.ClientID] = st
			}
			st.Expiry, st.Subscriptions, st.Detached, st.Username = c.Save.Expiry, c.Save.Subscriptions, c.Save.Detached, c.Save.Username
			d.left[c.ClientID] = time.Now()
		}
		if st == nil {
			return
		}
		st.Inbound = slices.DeleteFunc(st.Inbound, func(id uint16) bool { return slices.Contains(c.ForgetInbound, id) })
		st.Released = append(st.Released, c.Released...)
	}, done)
}

func (d *fakeDisk) ForgetRetained(topics ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range topics {
		delete(d.retained, t)
	}
}

func (d *fakeDisk) SetWill(id string, will *holdfast.Will, done func(error)) {
	d.commit(func() {
		if will == nil {
			delete(d.wills, id)
		} else {
			d.wills[id] = will
		}
	}, done)
}

// fakeBox is a session's queue that outlives brokers.
type fakeBox struct {
	*memoryOutbox
	disk     *fakeDisk
	clientID string
}

func (b *fakeBox) Ack(id holdfast.ItemID) {
	b.memoryOutbox.Ack(id)
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	if st := b.disk.sessions[b.clientID]; st != nil {
		st.Released = slices.DeleteFunc(st.Released, func(p uint64) bool { return p == id.Position() })
	}
}

// restart gives back what was handed out, as a new process would find it.
func (d *fakeDisk) restart() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, b := range d.boxes {
		b.mu.Lock()
		ids := slices.Collect(maps.Keys(b.taken))
		b.mu.Unlock()
		b.Release(ids...)
	}
}

var errDisk = errors.New("the disk is gone")
