package storage

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"holdfast"
)

// ruinSite is a folder with everything that a gateway keeps, as kill -9 leaves it;
// what it was in the middle of its life; and what is known of it.
type ruinSite struct {
	dir, earlier string
	// sent is how many messages each lane of each queue got, and acked how many of
	// them came to their end; by ruinKey.
	sent, acked map[string]int
}

const (
	ruinLives   = 5
	ruinTopics  = 7
	ruinInbound = 200
)

func ruinOptions(dir string) Options {
	return Options{Dir: dir, ChunkBytes: 128 << 10, TailBytes: 16 << 10}
}

// makeSite makes it in dir, once for all ruins.
func makeSite(t *testing.T, dir string) *ruinSite {
	x := &ruinSite{dir: filepath.Join(dir, "site"), earlier: filepath.Join(dir, "earlier"), sent: map[string]int{}, acked: map[string]int{}}
	live := filepath.Join(dir, "live")
	for life := range ruinLives {
		s := openTest(t, ruinOptions(live))
		x.live(t, s, life)
		switch life {
		case ruinLives / 2:
			copyStill(t, x.earlier, live)
		case ruinLives - 1:
			if err := s.marks.write(); err != nil {
				t.Fatal(err)
			}
			copyStill(t, x.dir, live)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return x
}

// copyStill copies the folder of an open store, in which Badger merges tables as
// it likes, at a moment when it does not.
func copyStill(t *testing.T, to, from string) {
	stands := func() string {
		list, _ := filepath.Glob(filepath.Join(from, "*"))
		info, _ := os.Stat(filepath.Join(from, "MANIFEST"))
		return fmt.Sprint(list, info.Size())
	}
	eventually(t, func() bool {
		before := stands()
		os.RemoveAll(to)
		return copySparse(to, from) == nil && stands() == before
	})
}

// live is one life of the store: it is filled, and read in part.
func (x *ruinSite) live(t *testing.T, s *Store, life int) {
	a, _ := s.Queue("bridge/a", QueueOptions{Ledger: true})
	b, _ := s.Queue("bridge/b", QueueOptions{Ledger: true})
	done := make(chan error, 20)
	await := func(n int) {
		t.Helper()
		for range n {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
	}
	tell := func(err error) { done <- err }
	if life == 0 {
		for _, id := range []string{"panel", "two"} {
			s.Change(&holdfast.SessionChange{ClientID: id, Save: &holdfast.SessionState{Expiry: 7, Subscriptions: []holdfast.Subscription{{Filter: "a/#", QoS: 2}}}}, tell)
			await(1)
		}
	}
	for i := range 500 {
		lane := holdfast.Lane(i % 3 / 2) // normal, normal, high
		p := &holdfast.Publication{Msg: x.message("bridge/a", lane)}
		appends := []Append{{Queue: a, Lane: lane, Route: "r" + strconv.Itoa(i%2), Msg: p.Msg}}
		if i%4 == 0 {
			appends = append(appends, Append{Queue: b, Route: "r", Msg: x.message("bridge/b", 0)})
		}
		if i%10 == 0 {
			// Whoever has a session gets the message itself.
			p.Msg = x.message("panel", 0)
			p.Msg.Topic, p.Msg.Retain = "a/"+strconv.Itoa(i%ruinTopics), i%20 == 0
			p.Sessions = []holdfast.Delivery{{ClientID: "panel", QoS: 1}}
		}
		if i%25 == 0 {
			p.Inbound = &holdfast.Inbound{ClientID: "two", PacketID: uint16(1 + life*32 + i/25)}
		}
		if err := s.Publish(p, appends, tell); err != nil {
			t.Fatal(err)
		}
		if i%4 == 3 { // so many a transaction, at most
			await(4)
		}
	}
	panel, err := s.SessionQueue("panel")
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range []*Queue{a, b, panel} {
		for range 30 {
			it, ok, err := q.TryNext()
			if err != nil || !ok {
				t.Fatalf("%s: %v %v", q.name, ok, err)
			}
			q.Ack(it.ID)
			x.acked[ruinKey(q.name, it.ID.Lane())]++
		}
	}
	s.SetWill("w", &holdfast.Will{Msg: &holdfast.Message{Topic: "w"}}, tell)
	await(1) // the progress is in it
}

// message is the next one of a lane.
func (x *ruinSite) message(queue string, lane holdfast.Lane) *holdfast.Message {
	key := ruinKey(queue, lane)
	m := &holdfast.Message{Topic: "a/b", QoS: 1, Payload: ruinPayload(key, x.sent[key])}
	x.sent[key]++
	return m
}

func ruinKey(queue string, lane holdfast.Lane) string { return queue + "/" + strconv.Itoa(int(lane)) }

func ruinPayload(key string, n int) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "%s %06d|", key, n), 30+n%60)
}

// ruinMessage reads what ruinPayload has written, and compares every byte.
func ruinMessage(b []byte) (key string, n int, err error) {
	text, _, _ := strings.Cut(string(b), "|")
	key, number, _ := strings.Cut(text, " ")
	if n, err = strconv.Atoi(number); err != nil || !bytes.Equal(ruinPayload(key, n), b) {
		return "", 0, fmt.Errorf("damaged bytes %.40q", b)
	}
	return key, n, nil
}

// copySparse copies the files of a folder, and leaves out the zeros at the ends of
// its logs.
func copySparse(to, from string) error {
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	files, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(from, f.Name()))
		if err != nil {
			return err
		}
		name := filepath.Join(to, f.Name())
		if err := errors.Join(os.WriteFile(name, bytes.TrimRight(b, "\x00"), 0o600), os.Truncate(name, int64(len(b)))); err != nil {
			return err
		}
	}
	return nil
}
