package storagetest

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"holdfast"
	"holdfast/storage"
)

// one is the size of one message of fill with a single digit.
var one = int64(msg("t", 1, "0").Size())

func boundOverAll(b *bench) {
	b.start(storage.Options{MaxBytes: 6 * one})
	first := b.queue("bridge/a", storage.QueueOptions{Ledger: true})
	second := b.queue("bridge/b", storage.QueueOptions{Ledger: true})
	newest := b.queue("bridge/c", storage.QueueOptions{Ledger: true, WhenFull: storage.DropNewest})
	b.fill(first, 0, 4)
	b.fill(second, 0, 4) // 0 and 1 of its own go
	b.fill(newest, 0, 1) // has nothing to drop, and would not
	if first.Len() != 4 || second.Len() != 2 || newest.Len() != 0 || b.s.Stats().Bytes != 6*one {
		b.Fatalf("%d %d %d, %d bytes", first.Len(), second.Len(), newest.Len(), b.s.Stats().Bytes)
	}
	if c := second.Ledger()["r"]; c.Accepted != 4 || c.Dropped["full"] != 2 || c.Queued != 2 {
		b.Fatalf("%+v", c)
	}
	if c := newest.Ledger()["r"]; c.Accepted != 1 || c.Dropped["full"] != 1 {
		b.Fatalf("%+v", c)
	}
	// A session counts too, and has nothing to drop at first.
	done := make(chan error, 1)
	b.must(b.s.Publish(&holdfast.Publication{Msg: msg("t", 1, "s"), Sessions: []holdfast.Delivery{{ClientID: "c", QoS: 1}}}, nil, func(err error) { done <- err }))
	b.must(<-done)
	c, err := b.s.SessionQueue("c")
	b.must(err)
	b.none(c)
	b.must(b.s.RemoveQueue("bridge/a"))
	b.fill(second, 4, 8)
	for i := 2; i < 8; i++ {
		second.Ack(b.next(second, fmt.Sprint(i)).ID)
	}
	if n := b.s.Stats().Bytes; n != 0 {
		b.Fatalf("%d bytes are left", n)
	}
}

func refuseOverAll(b *bench) {
	b.start(storage.Options{MaxBytes: 5 * one})
	roomy := b.queue("bridge/a", storage.QueueOptions{Ledger: true})
	refusing := b.queue("bridge/b", storage.QueueOptions{WhenFull: storage.Refuse, Ledger: true})
	b.fill(roomy, 0, 4)
	m := msg("t", 1, "x")
	publish := func(appends ...storage.Append) error {
		done := make(chan error, 1)
		err := b.s.Publish(&holdfast.Publication{Msg: m}, appends, func(err error) { done <- err })
		if err == nil {
			err = <-done
		}
		return err
	}
	a := storage.Append{Queue: refusing, Route: "r", Msg: m}
	if err := publish(a, a); !errors.Is(err, holdfast.ErrFull) {
		b.Fatal(err)
	}
	b.must(publish(a))
	if err := publish(a); !errors.Is(err, holdfast.ErrFull) {
		b.Fatal(err)
	}
	roomy.Ack(b.next(roomy, "0").ID)
	b.must(publish(a))
	if refusing.Len() != 2 || refusing.Ledger()["r"].Accepted != 2 {
		b.Fatalf("%d", refusing.Len())
	}
}

func boundOverAllOnDisk(b *bench) {
	o := storage.QueueOptions{Ledger: true}
	b.start(storage.Options{})
	b.fill(b.queue("bridge/a", o), 1000, 2000)
	b.fill(b.queue("bridge/b", o), 1000, 2000)
	size := b.s.Stats().Bytes
	b.must(b.s.Close())
	b.start(storage.Options{TailBytes: 1000, MaxBytes: size})
	if n := b.s.Stats().Bytes; n != size {
		b.Fatalf("%d bytes after the opening, were %d", n, size)
	}
	q, other := b.queue("bridge/a", o), b.queue("bridge/b", o)
	b.fill(q, 2000, 2100)
	b.fill(q, 2100, 2101) // what the others had to drop is gone by now
	if q.Len() < 999 || q.Len() > 1001 || other.Len() != 1000 {
		b.Fatalf("%d and %d", q.Len(), other.Len())
	}
	if c := q.Ledger()["r"]; c.Accepted != 1101 || !c.Balanced() || int(c.Queued) != q.Len() {
		b.Fatalf("%+v, length %d", c, q.Len())
	}
}

// qos0First: what was published with QoS 0 takes no place of anything else,
// whatever QoS its route sends it with.
func qos0First(b *bench) {
	b.start(storage.Options{})
	o := storage.QueueOptions{MaxMessages: 3, Ledger: true}
	q := b.queue("bridge/a", o)
	put := func(qos byte, payload string) {
		done := make(chan error, 1)
		m, out := msg("t", qos, payload), msg("t", 1, payload)
		b.must(b.s.Publish(&holdfast.Publication{Msg: m}, []storage.Append{{Queue: q, Route: "r", Msg: out}}, func(err error) { done <- err }))
		b.must(<-done)
	}
	put(0, "a0")
	put(1, "b1")
	put(0, "c0")
	put(0, "d0") // a0 goes
	put(0, "e0") // b1 is the oldest: e0 itself goes
	if c := q.Ledger()["r"]; c.Dropped["full"] != 2 {
		b.Fatalf("%+v", c)
	}
	// The same after a restart, with everything on disk.
	b.must(b.s.Close())
	b.start(storage.Options{})
	q = b.queue("bridge/a", o)
	for range 10 {
		put(0, "f0")
	}
	put(1, "g1") // b1 goes
	put(0, "h0") // c0 goes: what is known of the head comes from the disk
	for _, want := range []string{"d0", "g1", "h0"} {
		b.next(q, want)
	}
	b.none(q)
	if c := q.Ledger()["r"]; c.Accepted != 17 || c.Dropped["full"] != 14 || !c.Balanced() {
		b.Fatalf("%+v", c)
	}
}

// board is a clock that a test sets.
type board struct {
	mu      sync.Mutex
	boot    int
	up      time.Duration
	wall    time.Time
	trusted bool
}

func newBoard() *board {
	return &board{up: time.Minute, wall: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), trusted: true}
}

func (c *board) Boot() string { c.mu.Lock(); defer c.mu.Unlock(); return fmt.Sprint("boot", c.boot) }

func (c *board) Uptime() time.Duration { c.mu.Lock(); defer c.mu.Unlock(); return c.up }

func (c *board) Wall() (time.Time, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wall, c.trusted
}

func (c *board) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.up += d
	c.wall = c.wall.Add(d)
}

func (c *board) set(wall time.Time, trusted bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall, c.trusted = wall, trusted
}

// reboot is a time without power, and a few seconds of starting.
func (c *board) reboot(off time.Duration, trusted bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.boot++
	c.up = 10 * time.Second
	c.wall, c.trusted = c.wall.Add(off+c.up), trusted
}

func expires(b *bench) {
	clock := newBoard()
	o := storage.QueueOptions{MaxAge: time.Hour, Ledger: true}
	b.start(storage.Options{Clock: clock, ExpireEvery: time.Millisecond})
	q := b.queue("bridge/a", o)
	b.fill(q, 0, 3)
	out := b.next(q, "0")
	clock.pass(50 * time.Minute)
	b.fill(q, 3, 5)
	clock.pass(20 * time.Minute)
	b.next(q, "3") // 1 and 2 are too old
	q.Release(out.ID)
	b.next(q, "4") // and so is 0, which was given back
	b.none(q)
	if c := q.Ledger()["r"]; c.Dropped["expired"] != 3 || c.Queued != 2 || !c.Balanced() {
		b.Fatalf("%+v", c)
	}
	// What nobody asks for expires too: the backlog of a dead link shrinks.
	b.fill(q, 5, 100)
	clock.pass(2 * time.Hour)
	for q.Len() > 2 {
		tick(b)
	}
	// A later change of the bound counts for what is queued already.
	b.fill(q, 100, 101)
	q = b.queue("bridge/a", storage.QueueOptions{Ledger: true})
	clock.pass(2 * time.Hour)
	b.next(q, "100")
}

// tick waits a moment for the sweep.
func tick(b *bench) {
	b.Helper()
	t := time.NewTimer(10 * time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
	case <-b.Context().Done():
		b.Fatal("it never came")
	}
}

// expiresAhead: nothing that is too old is handed out before the backlog either.
func expiresAhead(b *bench) {
	clock := newBoard()
	b.start(storage.Options{Clock: clock, ExpireEvery: time.Hour})
	q := b.queue("bridge/a", storage.QueueOptions{MaxAge: time.Hour, Ledger: true})
	q.Mark()
	b.fill(q, 0, 2)
	clock.pass(50 * time.Minute)
	b.fill(q, 2, 3)
	clock.pass(20 * time.Minute)
	b.fresh(q, "2")
	b.fresh(q, "")
	b.none(q)
	if c := q.Ledger()["r"]; c.Dropped["expired"] != 2 || c.Queued != 1 || !c.Balanced() {
		b.Fatalf("%+v", c)
	}
}

func expiresByRoute(b *bench) {
	clock := newBoard()
	b.start(storage.Options{Clock: clock})
	q := b.queue("bridge/a", storage.QueueOptions{MaxAge: time.Hour, RouteMaxAge: map[string]time.Duration{"short": time.Minute, "long": 2 * time.Hour}, Ledger: true})
	put := func(route string) {
		done := make(chan error, 1)
		m := msg("t", 1, route)
		b.must(b.s.Publish(&holdfast.Publication{Msg: m}, []storage.Append{{Queue: q, Route: route, Msg: m}}, func(err error) { done <- err }))
		b.must(<-done)
	}
	put("long")
	put("short")
	put("other")
	clock.pass(10 * time.Minute)
	b.next(q, "long")
	b.next(q, "other")
	b.none(q)
	if c := q.Ledger()["short"]; c.Dropped["expired"] != 1 {
		b.Fatalf("%+v", c)
	}
}

// ageOverBoots: wherever the wall clock jumps, nothing expires before its time,
// and nothing stays for ever.
func ageOverBoots(b *bench) {
	clock := newBoard()
	o := storage.QueueOptions{MaxAge: time.Hour}
	n := 0
	var q *storage.Queue
	restart := func(crash bool, meanwhile ...func()) {
		if b.s != nil {
			if crash {
				b.s.Crash()
			} else {
				b.must(b.s.Close())
			}
		}
		for _, f := range meanwhile {
			f()
		}
		b.start(storage.Options{Clock: clock})
		q = b.queue("bridge/a", o)
	}
	put := func() { b.fill(q, n, n+1); n++ }
	there := func() { // the last message is
		b.Helper()
		q.Release(b.next(q, fmt.Sprint(n-1)).ID)
	}
	gone := func() { b.Helper(); b.none(q) }
	restart(false)

	// Within a boot the wall clock may be anything.
	put()
	real := clock.wall
	for _, jump := range []time.Time{time.Unix(0, 0), real.AddDate(20, 0, 0), real.AddDate(-3, 0, 0), real} {
		clock.set(jump, true)
		there()
		restart(true)
		there()
	}
	clock.pass(61 * time.Minute)
	gone()

	// Without power, with a good clock at both ends.
	put()
	restart(false, func() { clock.reboot(30*time.Minute, true) })
	there()
	restart(true, func() { clock.reboot(40*time.Minute, true) })
	gone()

	// The clock is found out later: until then only what is sure counts.
	put()
	good := clock.wall
	restart(false, func() {
		clock.reboot(0, false)
		clock.set(time.Unix(0, 0), false)
	})
	there()
	clock.set(good.Add(2*time.Hour), true)
	gone()

	// Never trusted: years forward, 1970. The uptime alone counts, and does.
	put()
	for _, jump := range []time.Time{good.AddDate(30, 0, 0), time.Unix(0, 0)} {
		restart(true, func() {
			clock.reboot(0, false)
			clock.set(jump, false)
		})
		there()
	}
	clock.pass(61 * time.Minute)
	gone()
}
