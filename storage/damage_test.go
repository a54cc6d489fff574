package storage

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast"
)

// image is the folder of a store as kill -9 leaves it, with what was promised.
type image struct {
	dir                 string
	accepted, delivered int // of queue bridge/a
	perBatch            int
	retained            int
}

// payload number i, so that every byte of it can be told.
func numbered(i int) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "%08d|", i), 40+i%7)
}

var (
	imageOnce sync.Once
	theImage  image
)

// damageImage makes the image once: several tables and two memtables, a queue
// that is delivered in part, a session, retained messages. The marks beside it
// are of its last commit.
func damageImage(t testing.TB) image {
	imageOnce.Do(func() {
		dir, err := os.MkdirTemp("", "holdfast-image")
		if err != nil {
			t.Fatal(err)
		}
		im := image{dir: filepath.Join(dir, "image"), perBatch: 10}
		live := filepath.Join(dir, "live")
		// Chunks are larger than what is delivered: the removal of one would
		// write the memtable into a table.
		s, err := Open(Options{Dir: live, ChunkBytes: 4 << 20, TailBytes: 64 << 10, AckDelay: time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		q, _ := s.Queue("bridge/a", QueueOptions{Ledger: true})
		done := make(chan error, 100)
		change := &holdfast.SessionChange{ClientID: "panel", Save: &holdfast.SessionState{Expiry: 7, Subscriptions: []holdfast.Subscription{{Filter: "a/#", QoS: 1}}}}
		s.Change(change, func(err error) { done <- err })
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		for im.accepted < 24000 {
			for range im.perBatch {
				m := &holdfast.Message{Topic: "a/b", QoS: 1, Payload: numbered(im.accepted)}
				p := &holdfast.Publication{Msg: m}
				if im.accepted%100 == 0 {
					p.Sessions = []holdfast.Delivery{{ClientID: "panel", QoS: 1}}
				}
				if im.accepted%1000 == 0 {
					m = &holdfast.Message{Topic: fmt.Sprint("r/", im.retained), QoS: 1, Retain: true, Payload: m.Payload}
					p.Msg = m
					im.retained++
				}
				if err := s.Publish(p, []Append{{Queue: q, Route: fmt.Sprint("r", im.accepted%3), Msg: m}}, func(err error) { done <- err }); err != nil {
					t.Fatal(err)
				}
				im.accepted++
			}
			for range im.perBatch {
				if err := <-done; err != nil {
					t.Fatal(err)
				}
			}
			if im.accepted%30 == 0 && im.accepted < 18000 {
				for range 10 {
					it, ok, err := q.TryNext()
					if !ok || err != nil {
						t.Fatal(ok, err)
					}
					q.Ack(it.ID)
					im.delivered++
				}
			}
		}
		// The progress rides on one more commit.
		s.SetWill("w", &holdfast.Will{Msg: &holdfast.Message{Topic: "w"}}, func(err error) { done <- err })
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if err := s.marks.write(); err != nil {
			t.Fatal(err)
		}
		// Badger merges in the background: an image is what stood still.
		stands := func() string {
			list, _ := filepath.Glob(filepath.Join(live, "*"))
			info, _ := os.Stat(filepath.Join(live, "MANIFEST"))
			return fmt.Sprint(list, info.Size())
		}
		eventually(t, func() bool {
			before := stands()
			os.RemoveAll(im.dir)
			return os.CopyFS(im.dir, os.DirFS(live)) == nil && stands() == before
		})
		s.Crash()
		os.RemoveAll(live)
		theImage = im
	})
	if theImage.dir == "" {
		t.Fatal("there is no image")
	}
	return theImage
}

// after opens a damaged copy of the image, checks all that must hold, and tells
// how many messages it has counted as lost and how many are missing unnoticed.
func (im image) after(t *testing.T, dir string) (lost, unseen int, st Stats) {
	t.Helper()
	s, err := Open(Options{Dir: dir, ChunkBytes: 4 << 20, ScrubEvery: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	q, _ := s.Queue("bridge/a", QueueOptions{Ledger: true})
	next, drained := 0, 0
	var last uint64
	for {
		it, ok, err := q.TryNext()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			break
		}
		i, _ := strconv.Atoi(string(it.Msg.Payload[:8]))
		switch {
		case i < next:
			t.Fatalf("%d came after %d", i, next-1)
		case i >= im.accepted || !bytes.Equal(it.Msg.Payload, numbered(i)):
			t.Fatalf("wrong bytes of %d", i)
		case it.ID.Position() != uint64(i)+1 || it.Route != fmt.Sprint("r", i%3):
			t.Fatalf("%d is at %d of route %q", i, it.ID.Position(), it.Route)
		}
		next, last = i+1, it.ID.Position()
		drained++
		q.Ack(it.ID)
	}
	if q.Len() != 0 {
		t.Errorf("%d left that never come", q.Len())
	}
	m := &holdfast.Message{Topic: "a/b", QoS: 1, Payload: []byte("new")}
	done := make(chan error, 1)
	if err := s.Publish(&holdfast.Publication{Msg: m}, []Append{{Queue: q, Route: "r0", Msg: m}}, func(err error) { done <- err }); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if it, ok, err := q.TryNext(); !ok || err != nil || it.ID.Position() <= last {
		t.Errorf("a position was used again: %v %v %v", it.ID, ok, err)
	}
	var sum holdfast.Counts
	for name, c := range q.Ledger() {
		if !c.Balanced() {
			t.Errorf("route %q: %+v", name, c)
		}
		sum.Accepted += c.Accepted
		sum.Delivered += c.Delivered
		sum.Lost += c.Lost
	}
	if sum.Accepted != sum.Delivered+sum.Lost+1 {
		t.Errorf("%+v", sum)
	}
	if _, err := s.Retained(); err != nil {
		t.Error(err)
	}
	if _, err := s.Sessions(); err != nil {
		t.Error(err)
	}
	return int(sum.Lost), im.accepted - im.delivered - drained - int(sum.Lost), s.Stats()
}

func (im image) copy(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store")
	if err := os.CopyFS(dir, os.DirFS(im.dir)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// files lists the files of the image that match.
func (im image) files(t testing.TB, pattern string) (names []string) {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(im.dir, pattern))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list {
		if info, err := os.Stat(f); err == nil && info.Mode().IsRegular() {
			names = append(names, filepath.Base(f))
		}
	}
	return names
}

// used is how long a file is without the zeros behind it.
func used(t testing.TB, name string) int {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return len(bytes.TrimRight(b, "\x00"))
}

func TestTheImageItselfHasNoDamage(t *testing.T) {
	im := damageImage(t)
	dir := im.copy(t)
	lost, unseen, st := im.after(t, dir)
	if lost != 0 || unseen != 0 || st.Unreadable != 0 {
		t.Fatalf("lost %d, unseen %d, %+v", lost, unseen, st)
	}
}

// Every kind of file, flipped or cut at many places: it opens, what can be read
// is there and in order, and the books balance. A flipped byte costs no more
// than the batch or block that it is in.
func TestDamageMatrix(t *testing.T) {
	t.Parallel()
	im := damageImage(t)
	seed, rounds := uint64(1), 1
	if v := os.Getenv("HOLDFAST_DAMAGE"); v != "" { // SEED,ROUNDS
		a, b, _ := strings.Cut(v, ",")
		seed, _ = strconv.ParseUint(a, 10, 64)
		rounds, _ = strconv.Atoi(b)
	}
	rnd := rand.New(rand.NewPCG(seed, seed))
	worst := map[string]int{}
	for _, name := range im.files(t, "*") {
		for round := range rounds {
			for _, how := range []string{"flip", "cut", "zeros", "gone"} {
				if how == "gone" && round > 0 {
					continue
				}
				n := used(t, filepath.Join(im.dir, name))
				at := 0
				if n > 0 {
					at = rnd.IntN(n)
				}
				what := fmt.Sprintf("%s %s at %d of %d", how, name, at, n)
				t.Run(strings.ReplaceAll(what, " ", "_"), func(t *testing.T) {
					dir := im.copy(t)
					hurt(t, filepath.Join(dir, name), how, at)
					lost, unseen, _ := im.after(t, dir)
					if unseen != 0 {
						t.Errorf("%s: %d messages are missing and not counted", what, unseen)
					}
					kind := how + " " + filepath.Ext(name) + strings.TrimSuffix(name, filepath.Ext(name))
					if ext := filepath.Ext(name); ext != "" {
						kind = how + " *" + ext
					}
					worst[kind] = max(worst[kind], lost)
					if how == "flip" && lost > 2*im.perBatch {
						t.Errorf("%s: %d messages are lost", what, lost)
					}
				})
			}
		}
	}
	var kinds []string
	for k, n := range worst {
		kinds = append(kinds, fmt.Sprintf("%s: at most %d of %d", k, n, im.accepted-im.delivered))
	}
	slices.Sort(kinds)
	t.Log(strings.Join(kinds, "\n"))
}

func hurt(t testing.TB, name, how string, at int) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	switch how {
	case "flip":
		b := make([]byte, 1)
		if _, err := f.ReadAt(b, int64(at)); err != nil && !errors.Is(err, fs.ErrClosed) {
			b[0] = 0
		}
		b[0] ^= 0x41
		_, err = f.WriteAt(b, int64(at))
	case "zeros": // a page that was never written
		_, err = f.WriteAt(make([]byte, 4096), int64(at&^4095))
	case "cut":
		err = f.Truncate(int64(at))
	case "gone":
		err = os.Remove(name)
	}
	if err != nil {
		t.Fatal(err)
	}
}
