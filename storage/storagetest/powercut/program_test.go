//go:build linux && (amd64 || arm64)

package powercut

import (
	"bufio"
	"bytes"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"holdfast/storage"
)

// The program under test opens a store, says what it finds there, and then
// works until its power goes. It talks in lines of words:
//
//	item QUEUE POSITION SOURCE SEQ     found: a message
//	inbound CLIENT ID                  found: a QoS 2 packet identifier
//	released POSITION                  found: a PUBREC of session "two"
//	retained TOPIC SOURCE SEQ          found: a retained value
//	session CLIENT FILTERS             found; session! CLIENT: promised
//	books ROUTE ACCEPTED QUEUED BALANCED LOST
//	dropped ROUTE REASON N             found, in the books of the bridge's queue
//	store LOST UNREADABLE LENGTH       LENGTH is that of the bridge's queue
//	bad WORDS                          found, and must not be
//	opened                             the end of what was found
//	spill LIFE                         this life runs in spill mode
//	direct N                           so many messages went without the disk till now
//	want SOURCE SEQ                    about to be published
//	safe SOURCE SEQ                    promised
//	retain TOPIC SOURCE SEQ            about to be retained, with the want of the same
//	got QUEUE SOURCE SEQ               taken out, written before the Ack
//	forget CLIENT ID                   about to be forgotten; forgotten: promised
//	pubrec POSITION, pubcomp POSITION  session "two": promised; about to be acked

// publishers of a life; all go to the bridge and to session "one", those of
// QoS 2 to session "two" as well. The last publishes retained values only.
const (
	publisherCount = 6
	batchSize      = 8
	stateTopics    = 4
)

func publisherQoS(p int) byte              { return []byte{1, 1, 1, 2, 2, 1}[p] }
func retains(p int) bool                   { return p == publisherCount-1 }
func sourceName(life string, p int) string { return life + "." + strconv.Itoa(p) }

// inboundID is the packet identifier of a QoS 2 message; it is used once.
func inboundID(life int, seq uint64) uint16 { return uint16((uint64(life)*6000+seq)%65535) + 1 }

func storeOptions(dir string, spill bool) storage.Options {
	sync := storage.Always
	if spill {
		sync = storage.Spill
	}
	// Small parts, so that batches, chunks and tails end often.
	return storage.Options{Dir: dir, ChunkBytes: 256 << 10, TailBytes: 32 << 10, DropEvery: 100 * time.Millisecond, AckDelay: 10 * time.Millisecond,
		Sync: sync, SpillAfter: 50 * time.Millisecond}
}

func content(source string, seq uint64) []byte {
	h := crc32.ChecksumIEEE(fmt.Appendf(nil, "%s %d", source, seq))
	b := fmt.Appendf(nil, "%s %d ", source, seq)
	n := int(h % 300)
	if h%97 == 0 {
		n += int(h % 20000)
	}
	for i := range n {
		b = append(b, byte(h>>(i%24))^byte(i))
	}
	return b
}

// stamp reads what content has written, and compares every byte.
func stamp(b []byte) (source string, seq uint64, err error) {
	source, rest, _ := strings.Cut(string(b), " ")
	digits, _, _ := strings.Cut(rest, " ")
	if seq, err = strconv.ParseUint(digits, 10, 64); err != nil || !bytes.Equal(content(source, seq), b) {
		return "", 0, fmt.Errorf("damaged content %.30q", b)
	}
	return source, seq, nil
}

// voice writes lines, each whole, from many goroutines. What was written is in
// the pipe: it survives the program.
type voice struct {
	mu sync.Mutex
	w  io.Writer
	// later are lines of those who must not block.
	later []byte
	more  chan struct{}
}

func (v *voice) say(format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	fmt.Fprintf(v.w, format+"\n", args...)
}

// note is say for the committer's goroutine.
func (v *voice) note(format string, args ...any) {
	v.mu.Lock()
	v.later = fmt.Appendf(v.later, format+"\n", args...)
	v.mu.Unlock()
	select {
	case v.more <- struct{}{}:
	default:
	}
}

func (v *voice) run() {
	for range v.more {
		v.mu.Lock()
		b := v.later
		v.later = nil
		_, err := v.w.Write(b)
		v.mu.Unlock()
		if err != nil {
			return
		}
	}
}

type worker struct {
	v     *voice
	s     *storage.Store
	q     *storage.Queue
	life  string
	n     int
	early bool
	spill bool
}

func program(dir, life string) error {
	w := &worker{v: &voice{w: os.Stdout, more: make(chan struct{}, 1)}, life: life, early: os.Getenv(envEarly) != "", spill: os.Getenv(envSpill) != ""}
	var err error
	if w.n, err = strconv.Atoi(life); err != nil {
		return err
	}
	go w.v.run() // ends with the process, like everything here
	if w.s, err = storage.Open(storeOptions(dir, w.spill)); err != nil {
		return err
	}
	if w.q, err = w.s.Queue("bridge/a", storage.QueueOptions{Ledger: true}); err != nil {
		return err
	}
	if err := w.tell(w.n == 0); err != nil {
		return err
	}
	if w.n == 0 {
		return w.s.Close()
	}
	if w.spill {
		w.v.say("spill %d", w.n)
	}
	if err := w.sessions(); err != nil {
		return err
	}
	go pushOut(dir)
	for p := range publisherCount {
		go w.publish(p)
	}
	one, err := w.s.SessionQueue("one")
	if err != nil {
		return err
	}
	two, err := w.s.SessionQueue("two")
	if err != nil {
		return err
	}
	take := w.take
	if w.spill {
		take = w.takeAtOnce
	}
	go take("bridge", w.q)
	go take("one", one)
	w.takeTwo(two)
	return nil
}

// tell says what is in the store. Messages are listed only if nothing follows:
// listing hands them out.
func (w *worker) tell(items bool) error {
	whole := bufio.NewWriter(w.v.w)
	defer func(before io.Writer) {
		whole.Flush()
		w.v.w = before
	}(w.v.w)
	w.v.w = whole
	states, err := w.s.Sessions()
	if err != nil {
		return err
	}
	for _, st := range states {
		w.v.say("session %s %d", st.ClientID, len(st.Subscriptions))
		for _, id := range st.Inbound {
			w.v.say("inbound %s %d", st.ClientID, id)
		}
		for _, pos := range st.Released {
			w.v.say("released %d", pos)
		}
	}
	retained, err := w.s.Retained()
	if err != nil {
		return err
	}
	for _, m := range retained {
		source, seq, err := stamp(m.Payload)
		if err != nil {
			w.v.say("bad retained %v", err)
		}
		w.v.say("retained %s %s %d", m.Topic, source, seq)
	}
	st := w.s.Stats()
	for route, c := range w.q.Ledger() {
		w.v.say("books %s %d %d %t %d", route, c.Accepted, c.Queued, c.Balanced(), c.Lost)
	}
	for route, c := range w.q.Ledger() {
		for reason, n := range c.Dropped {
			w.v.say("dropped %s %s %d", route, reason, n)
		}
	}
	w.v.say("store %d %d %d", st.Lost, st.Unreadable, w.q.Len())
	for _, name := range []string{"bridge", "one", "two"} {
		q := w.q
		if name != "bridge" {
			if q, err = w.s.SessionQueue(name); err != nil {
				return err
			}
		}
		for items {
			it, ok, err := q.TryNext()
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			source, seq, err := stamp(it.Msg.Payload)
			if err != nil {
				w.v.say("bad %s %v", name, err)
			}
			w.v.say("item %s %d %s %d", name, it.ID.Position(), source, seq)
		}
	}
	w.v.say("opened")
	return nil
}
