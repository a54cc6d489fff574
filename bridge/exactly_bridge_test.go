package bridge

import (
	"cmp"
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"holdfast"
)

// exactQueue is a fakeQueue that remembers packet identifiers.
type exactQueue struct {
	*fakeQueue
	slow time.Duration // each save

	x     sync.Mutex
	full  bool // the disk takes nothing
	name  string
	bound map[uint16]holdfast.Bound
	came  map[uint16]bool // the identifiers of what has come down; nil if nobody notes them
}

func (q *exactQueue) FarSession() (far holdfast.FarSession) {
	q.x.Lock()
	defer q.x.Unlock()
	q.mu.Lock()
	defer q.mu.Unlock()
	far.Name, far.Bound = q.name, slices.Collect(maps.Values(q.bound))
	far.Inbound = slices.Collect(maps.Keys(q.came))
	for i := range far.Bound {
		_, far.Bound[i].Gone = q.gone[far.Bound[i].Item]
	}
	slices.SortFunc(far.Bound, func(a, b holdfast.Bound) int { return cmp.Compare(a.Item, b.Item) })
	return far
}

func (q *exactQueue) ChangeFarSession(c *holdfast.FarSessionChange, done func(error)) {
	q.x.Lock()
	full := q.full
	if !full {
		if c.Begin != nil {
			q.name, q.bound = *c.Begin, map[uint16]holdfast.Bound{}
			clear(q.came)
		}
		for _, id := range c.Free {
			delete(q.bound, id)
		}
		for _, b := range c.Bind {
			q.bound[b.PacketID] = b
		}
		for _, id := range c.ForgetInbound {
			delete(q.came, id)
		}
	}
	q.x.Unlock()
	switch {
	case full:
		done(errors.New("no space"))
	case q.slow > 0:
		time.AfterFunc(q.slow, func() { done(nil) })
	default:
		done(nil)
	}
}

func (q *exactQueue) Ack(id holdfast.ItemID) {
	q.x.Lock()
	maps.DeleteFunc(q.bound, func(_ uint16, b holdfast.Bound) bool { return b.Item == id })
	q.x.Unlock()
	q.fakeQueue.Ack(id)
}

func (q *exactQueue) Take(id holdfast.ItemID) (it holdfast.Item, ok bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.IndexFunc(q.waiting, func(it holdfast.Item) bool { return it.ID == id })
	if i < 0 {
		return it, false, nil
	}
	it = q.waiting[i]
	q.waiting = slices.Delete(q.waiting, i, i+1)
	q.out[id] = it
	it.Again = true
	return it, true, nil
}

func (q *exactQueue) setFull(full bool) {
	q.x.Lock()
	defer q.x.Unlock()
	q.full = full
}

// bind gives the last message an identifier, as an earlier process has.
func (q *exactQueue) bind(id uint16, received bool) {
	q.name = "far"
	if q.bound == nil {
		q.bound = map[uint16]holdfast.Bound{}
	}
	q.bound[id] = holdfast.Bound{PacketID: id, Item: holdfast.NewItemID(holdfast.Normal, q.last), Received: received}
}

// exactFar is a far broker that delivers a message of QoS 2 at PUBREL, once for
// each identifier.
type exactFar struct {
	*fakeBroker
	news       int // connections that begin a new session, from the first one
	onExactly  func(u *fakeUpstream, id uint16, received func(error)) (taken bool)
	onReleased func(u *fakeUpstream, id uint16, done func(error)) (taken bool)

	x         sync.Mutex
	holds     map[uint16]string
	delivered []string
}

type exactLink struct {
	*fakeUpstream
	far     *exactFar
	present bool
}

func (f *exactFar) connect(ctx context.Context, receive Receive) (Upstream, error) {
	u, err := f.fakeBroker.Connect(ctx, receive)
	if err != nil {
		return nil, err
	}
	f.x.Lock()
	defer f.x.Unlock()
	f.news--
	if f.news >= 0 {
		f.holds = map[uint16]string{}
	}
	return &exactLink{u.(*fakeUpstream), f, f.news < 0}, nil
}

func (u *exactLink) Begin(inbox) {}

func (u *exactLink) Exactly() (bool, bool) { return true, u.present }

func (u *exactLink) PublishExactly(id uint16, m *holdfast.Message, again bool, received func(error)) {
	u.far.x.Lock()
	if u.far.holds[id] == "" {
		u.far.holds[id] = string(m.Payload)
	}
	u.far.x.Unlock()
	u.far.story.add("exactly %d %s %v", id, m.Payload, again)
	if f := u.far.onExactly; f == nil || !f(u.fakeUpstream, id, received) {
		received(nil)
	}
}

func (u *exactLink) Release(id uint16, done func(error)) {
	if f := u.far.onReleased; f != nil && f(u.fakeUpstream, id, done) {
		return
	}
	u.far.x.Lock()
	if m := u.far.holds[id]; m != "" {
		u.far.delivered = append(u.far.delivered, m)
		delete(u.far.holds, id)
	}
	u.far.x.Unlock()
	done(nil)
}

func (f *exactFar) want(t *testing.T, delivered ...string) {
	t.Helper()
	f.x.Lock()
	defer f.x.Unlock()
	if !slices.Equal(f.delivered, delivered) {
		t.Errorf("%q were delivered, wanted %q: %q", f.delivered, delivered, f.story.take())
	}
}

// onceLocal is a fakeLocal that nothing comes to with QoS 2.
type onceLocal struct{ *fakeLocal }

func (l onceLocal) PublishOnce(*holdfast.Message, uint16, func(error)) {}

// startExactly runs a bridge of QoS 2 to far.
func startExactly(t *testing.T, far *exactFar, change func(*Options, *exactQueue)) (*world, *exactQueue) {
	t.Helper()
	if far.holds == nil {
		far.holds = map[uint16]string{}
	}
	far.fakeBroker = &fakeBroker{onPublish: func(u *fakeUpstream, m *holdfast.Message, done func(error)) { done(nil) }}
	q := &exactQueue{bound: map[uint16]holdfast.Bound{}}
	w := start(t, far.fakeBroker, func(o *Options) {
		q.fakeQueue = o.Queue.(*fakeQueue)
		o.Queue, o.FarSession, o.Routes[0].QoS = q, "far", 2
		o.Local = onceLocal{o.Local.(*fakeLocal)}
		o.Upstreams[0].Connect = far.connect
		if change != nil {
			change(o, q)
		}
	})
	return w, q
}

// The far broker has lost its session, and the connection that tells it so dies
// before anything is sent, or while the disk takes nothing.
func TestASessionThatIsLostIsNotForgotten(t *testing.T) {
	for name, full := range map[string]bool{"before SUBACK": false, "before SUBACK, no space": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				far := &exactFar{news: 1}
				var w *world
				var q *exactQueue
				w, q = startExactly(t, far, func(o *Options, q *exactQueue) {
					o.Routes = append(o.Routes, Route{Name: "in", Filter: "cmd/#", Direction: In})
					q.add(1, 2)
					q.bind(1, true) // PUBREC has come, and nothing was delivered yet
					q.full = full
					far.subscribe = errors.New("the link is cut")
				})
				synctest.Wait()
				q.setFull(false)
				far.mu.Lock()
				far.subscribe = nil
				far.mu.Unlock()
				time.Sleep(time.Minute)
				far.want(t, "1")
				if st := w.b.Status(); st.Unsure != 1 || st.Acked != 1 {
					t.Errorf("%d unsure, %d acknowledged", st.Unsure, st.Acked)
				}
				w.stop()
			})
		})
	}
}

// A message that has an identifier at the far broker goes without it while the
// disk takes nothing; its identifier must not be taken for that of another one.
func TestAnIdentifierIsReleasedAfterAConnectionWithoutExactlyOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q *exactQueue
		var w *world
		far := &exactFar{news: 1}
		far.onExactly = func(u *fakeUpstream, _ uint16, received func(error)) bool {
			if w.b.Status().Connections > 1 {
				return false
			}
			q.setFull(true)
			u.lose(errors.New("PUBREC is lost"))
			return true
		}
		w, q = startExactly(t, far, nil)
		synctest.Wait()
		q.add(1, 2)
		time.Sleep(time.Minute)
		q.setFull(false)
		far.last().lose(errors.New("cut"))
		time.Sleep(time.Minute)
		q.add(1, 2)
		time.Sleep(time.Minute)
		if st := w.b.Status(); st.Acked != 2 || st.Connections != 3 {
			t.Fatalf("%+v", st)
		}
		far.want(t, "1", "2")
		w.stop()
	})
}

func TestASlowDiskIsNotASilentBroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, q := startExactly(t, &exactFar{news: 1}, func(_ *Options, q *exactQueue) { q.slow = defaultAckTimeout - time.Second })
		time.Sleep(time.Hour) // idle
		q.add(2, 2)
		time.Sleep(time.Hour)
		if st := w.b.Status(); st.Connections != 1 || st.Acked != 2 {
			t.Errorf("%d connections, %d acknowledged: %s", st.Connections, st.Acked, st.LastError)
		}
		w.stop()
	})
}

// Messages that a spent plan holds must not keep all the identifiers.
func TestMessagesThatAreOnTheirWayAreNotHeldByThePlan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		far := &exactFar{}
		plan := NewPlan(PlanOptions{Name: "p", Limits: PlanLimits{Bytes: 1000, FirstDay: 1}, Count: func() Counted {
			return Counted{Parts: map[string]uint64{"x": 2000}, First: 2000}
		}})
		w, q := startExactly(t, far, func(o *Options, q *exactQueue) {
			o.Window, o.Upstreams[0].Plan = 2*exactIDs, plan
			for id := uint16(1); id <= exactIDs; id++ {
				q.add(1, 2)
				q.bind(id, false)
			}
			q.add(1, 2) // it waits
			q.insert(holdfast.High, "alarm")
			q.waiting[0].Msg.QoS = 2
		})
		time.Sleep(time.Minute)
		if st := w.b.Status(); plan.Status().Level != PlanHighOnly || st.Acked != exactIDs+1 || q.Len() != 1 {
			t.Errorf("%v: %d acknowledged, %d are left", plan.Status().Level, st.Acked, q.Len())
		}
		w.stop()
	})
}

// Identifiers that are not ours, from another version or a damaged store.
func TestStrangeIdentifiersAreLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		far := &exactFar{}
		far.onReleased = func(_ *fakeUpstream, id uint16, done func(error)) bool {
			if id == 0 || id > exactIDs {
				t.Errorf("PUBREL %d is sent", id)
			}
			return false
		}
		w, q := startExactly(t, far, func(_ *Options, q *exactQueue) {
			for _, id := range []uint16{0, exactIDs + 1, 65535} {
				q.add(1, 2)
				q.bind(id, false)
				q.gone[holdfast.NewItemID(holdfast.Normal, q.last)] = "expired"
			}
			q.waiting = nil
		})
		synctest.Wait()
		q.add(1, 2)
		synctest.Wait()
		far.want(t, "4")
		w.stop()
	})
}

// The link dies again and again soon after PUBREL: the far broker has the message.
func TestAMessageThatTheFarBrokerHasIsNotBlamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		far := &exactFar{}
		cuts := 0
		far.onReleased = func(u *fakeUpstream, id uint16, done func(error)) bool {
			far.x.Lock()
			defer far.x.Unlock()
			if cuts == 0 {
				return false
			}
			cuts--
			u.lose(errors.New("cut"))
			return true
		}
		w, q := startExactly(t, far, nil)
		synctest.Wait()
		far.x.Lock()
		cuts = 20
		far.x.Unlock()
		q.add(1, 2)
		time.Sleep(time.Hour)
		far.want(t, "1")
		if st := w.b.Status(); st.Quarantined != 0 || st.Acked != 1 {
			t.Errorf("%d in quarantine, %d acknowledged", st.Quarantined, st.Acked)
		}
		w.stop()
	})
}

// A far broker that does not answer PUBREL must not be waited for without an end.
func TestAPubrelWithoutAnAnswerEndsTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		far := &exactFar{}
		far.onReleased = func(*fakeUpstream, uint16, func(error)) bool { return true }
		w, q := startExactly(t, far, nil)
		q.add(1, 2)
		time.Sleep(2 * defaultAckTimeout)
		if st := w.b.Status(); st.Connections != 2 || !strings.Contains(st.LastError, errUnanswered.Error()) {
			t.Errorf("%d connections: %s", st.Connections, st.LastError)
		}
		w.stop()
	})
}

// Some brokers of MQTT 5 answer the repetition of a PUBLISH with an error.
func TestAPacketIdentifierInUseIsThatOfTheRepetition(t *testing.T) {
	for _, again := range []bool{true, false} {
		noLeaks(t)
		up, far, err := conversation(t, accepted, ClientOptions{Exactly: true})
		if err != nil {
			t.Fatal(err)
		}
		received := make(chan error, 1)
		up.(exactUpstream).PublishExactly(1, &holdfast.Message{Topic: "a", QoS: 2}, again, func(err error) { received <- err })
		far.Read(make([]byte, 100))
		far.Write([]byte{0x50, 3, 0, 1, 0x91})
		if err := next(t, received, "PUBREC"); again != (err == nil) || !again && !errors.Is(err, errInUse) {
			t.Errorf("again %v: %v", again, err)
		}
		far.Close()
		up.Close()
	}
}

// What the far broker has under an identifier, and nobody here knows of, is
// released before the identifier is used again.
func TestAnIdentifierThatIsInUseIsReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		far := &exactFar{}
		far.onExactly = func(_ *fakeUpstream, id uint16, received func(error)) bool {
			far.x.Lock()
			strange := far.holds[id] == "strange"
			far.x.Unlock()
			if strange {
				received(errInUse)
			}
			return strange
		}
		w, q := startExactly(t, far, nil)
		synctest.Wait()
		far.x.Lock()
		far.holds[1] = "strange"
		far.x.Unlock()
		q.add(1, 2)
		time.Sleep(10 * time.Minute)
		far.want(t, "strange", "1")
		w.stop()
	})
}

// Over MQTT 3.1.1 a broker without QoS 2 cannot say so: it ends the connection.
func TestABrokerWithoutQoS2IsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		far := &exactFar{}
		far.onReleased = func(u *fakeUpstream, _ uint16, _ func(error)) bool {
			u.lose(io.EOF)
			return true
		}
		w, _ := startExactly(t, far, func(_ *Options, q *exactQueue) {
			far.fakeBroker.onPublish = func(*fakeUpstream, *holdfast.Message, func(error)) {}
			q.add(30, 1)
		})
		time.Sleep(time.Hour)
		st := w.b.Status()
		if st.Quarantined != 0 || !strings.Contains(st.LastError, "write qos = 1") {
			t.Errorf("%d in quarantine: %s", st.Quarantined, st.LastError)
		}
		w.stop()
	})
}
