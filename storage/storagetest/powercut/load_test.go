//go:build linux && (amd64 || arm64)

package powercut

import (
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"holdfast"
	"holdfast/storage"
)

// wait runs a call that answers later.
func wait(call func(done func(error))) error {
	done := make(chan error, 1)
	call(func(err error) { done <- err })
	return <-done
}

// sessions makes the durable sessions, if they are not there.
func (w *worker) sessions() error {
	names := []string{"one", "two"}
	for p := range publisherCount {
		if publisherQoS(p) == 2 {
			names = append(names, "client"+strconv.Itoa(p))
		}
	}
	for _, name := range names {
		c := holdfast.SessionChange{ClientID: name, Save: &holdfast.SessionState{
			Expiry: holdfast.NeverExpires, Subscriptions: []holdfast.Subscription{{Filter: name + "/#", QoS: 2}},
		}}
		if err := wait(func(done func(error)) { w.s.Change(&c, done) }); err != nil {
			return err
		}
		w.v.say("session! %s", name)
	}
	return nil
}

// retry is how long a publisher waits after a refusal, as one does whose
// connection was ended.
const retry = 20 * time.Millisecond

// publish publishes batch after batch, and sends again from the first that
// was not promised.
func (w *worker) publish(p int) {
	source := sourceName(w.life, p)
	again := time.NewTicker(retry)
	said := &prefix{}
	for seq := uint64(1); ; {
		if w.spill && (publisherQoS(p) == 2 || retains(p)) {
			<-again.C // else all that waits is written with it at once
		}
		results := make(chan result, batchSize)
		sent := 0
		for ; sent < batchSize; sent++ {
			if err := w.offer(p, source, seq+uint64(sent), said, results); err != nil {
				break
			}
		}
		good, failed := uint64(0), sent < batchSize
		var safe [batchSize]bool
		for range sent {
			r := <-results
			safe[r.seq-seq] = r.err == nil
			failed = failed || r.err != nil
		}
		for good < batchSize && safe[good] {
			good++
		}
		if publisherQoS(p) == 2 && good > 0 {
			w.forget(p, seq, seq+good)
		}
		if seq += good; failed {
			<-again.C
		}
	}
}

type result struct {
	seq uint64
	err error
}

// prefix is how far a source was promised without a gap: with spill one message
// may be promised before an older one.
type prefix struct {
	mu   sync.Mutex
	last uint64
	more map[uint64]bool
}

func (f *prefix) add(seq uint64) (last uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.more == nil {
		f.more = map[uint64]bool{}
	}
	for f.more[seq] = true; f.more[f.last+1]; f.last++ {
		delete(f.more, f.last+1)
	}
	return f.last
}

func (w *worker) offer(p int, source string, seq uint64, said *prefix, results chan<- result) error {
	m := &holdfast.Message{Topic: "t/" + source, Payload: content(source, seq), QoS: publisherQoS(p), Received: time.Now()}
	pub := &holdfast.Publication{Msg: m}
	var appends []storage.Append
	w.v.say("want %s %d", source, seq)
	if retains(p) {
		m.Topic, m.Retain = "state/"+strconv.Itoa(int(seq%stateTopics)), true
		w.v.say("retain %s %s %d", m.Topic, source, seq)
	} else {
		appends = []storage.Append{{Queue: w.q, Route: "r" + strconv.Itoa(p), Msg: m}}
		pub.Sessions = []holdfast.Delivery{{ClientID: "one", QoS: 1}}
	}
	if m.QoS == 2 {
		pub.Sessions = append(pub.Sessions, holdfast.Delivery{ClientID: "two", QoS: 2})
		pub.Inbound = &holdfast.Inbound{ClientID: "client" + strconv.Itoa(p), PacketID: inboundID(w.n, seq)}
	}
	err := w.s.Publish(pub, appends, func(err error) {
		if err == nil && !w.early {
			w.v.note("safe %s %d", source, said.add(seq))
		}
		results <- result{seq, err}
	})
	if err == nil && w.early {
		w.v.say("safe %s %d", source, seq)
	}
	return err
}

// forget ends every second QoS 2 exchange; the others stay as if PUBREL had
// not come.
func (w *worker) forget(p int, from, to uint64) {
	client := "client" + strconv.Itoa(p)
	var ids []uint16
	for seq := from; seq < to; seq++ {
		if id := inboundID(w.n, seq); seq%2 == 0 {
			ids = append(ids, id)
			w.v.say("forget %s %d", client, id)
		}
	}
	c := holdfast.SessionChange{ClientID: client, ForgetInbound: ids}
	w.s.Change(&c, func(err error) {
		for _, id := range ids {
			if err == nil {
				w.v.note("forgotten %s %d", client, id)
			}
		}
	})
}

// take takes messages out in bursts, slower than they come in; the more there
// are, the longer the bursts, or a fast machine fills the disk.
func (w *worker) take(name string, q *storage.Queue) {
	tick := time.NewTicker(10 * time.Millisecond)
	for range tick.C {
		for range rand.IntN(120 + int(q.Len()/20)) {
			it, ok, err := q.TryNext()
			if err != nil || !ok {
				break
			}
			source, seq, err := stamp(it.Msg.Payload)
			if err != nil {
				w.v.say("bad %s %v", name, err)
			}
			w.v.say("got %s %s %d", name, source, seq)
			q.Ack(it.ID)
		}
	}
}

// takeAtOnce takes messages out as they come, and stops now and then.
func (w *worker) takeAtOnce(name string, q *storage.Queue) {
	ready := make(chan struct{}, 1)
	q.Notify(func() {
		select {
		case ready <- struct{}{}:
		default:
		}
	})
	for n := 0; ; n++ {
		it, ok, err := q.TryNext()
		if err != nil || !ok {
			<-ready
			continue
		}
		source, seq, err := stamp(it.Msg.Payload)
		if err != nil {
			w.v.say("bad %s %v", name, err)
		}
		w.v.say("got %s %s %d", name, source, seq)
		q.Ack(it.ID)
		if n%50 == 0 {
			w.v.say("direct %d", w.s.Stats().Direct)
		}
		if rand.IntN(2000) == 0 {
			stopped := time.NewTimer(time.Duration(rand.IntN(200)) * time.Millisecond)
			<-stopped.C
		}
	}
}

// takeTwo is the subscriber of QoS 2: PUBREC is made durable, and some are
// left there for a while.
func (w *worker) takeTwo(q *storage.Queue) {
	tick := time.NewTicker(10 * time.Millisecond)
	for range tick.C {
		for range rand.IntN(10) {
			it, ok, err := q.TryNext()
			if err != nil || !ok {
				break
			}
			source, seq, err := stamp(it.Msg.Payload)
			if err != nil {
				w.v.say("bad two %v", err)
			}
			pos := it.ID.Position()
			c := holdfast.SessionChange{ClientID: "two", Released: []uint64{pos}}
			if wait(func(done func(error)) { w.s.Change(&c, done) }) != nil {
				q.Release(it.ID)
				break
			}
			w.v.say("got two %s %d", source, seq)
			w.v.say("pubrec %d", pos)
			if rand.IntN(4) > 0 {
				w.v.say("pubcomp %d", pos)
				q.Ack(it.ID)
			}
		}
	}
}

// pushOut has the kernel write some dirty pages that nobody has synced, as it
// does by itself on a machine that runs for longer.
func pushOut(dir string) {
	tick := time.NewTicker(7 * time.Millisecond)
	for range tick.C {
		_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || rand.IntN(4) > 0 {
				return nil
			}
			if f, err := os.OpenFile(path, os.O_RDWR, 0); err == nil {
				_ = unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
				f.Close()
			}
			return nil
		})
	}
}
