package storage

import (
	"testing"

	"holdfast"
)

// ruinReport counts messages after a ruin.
type ruinReport struct{ came, lost, unseen int }

func (r *ruinReport) add(n ruinReport) {
	r.came, r.lost, r.unseen = r.came+n.came, r.lost+n.lost, r.unseen+n.unseen
}

// after opens a ruined folder, and checks all that must hold. marked: the marks are
// ruined too, and nobody knows what is missing at an end.
func (x *ruinSite) after(t *testing.T, o Options, marked bool) (r ruinReport) {
	s := openTest(t, o)
	x.smallRows(t, s)
	for _, name := range []string{"bridge/a", "bridge/b", "panel"} {
		q, err := s.SessionQueue(name)
		if name != "panel" {
			q, err = s.Queue(name, QueueOptions{Ledger: true})
		}
		if err != nil {
			t.Fatal(err)
		}
		one, last := x.drained(t, q, marked)
		r.add(one)
		// It works.
		m := &holdfast.Message{Topic: "new", QoS: 1, Payload: []byte("new")}
		if err := publishNow(t, s, &holdfast.Publication{Msg: m}, Append{Queue: q, Route: "r0", Msg: m}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		it, ok, err := q.TryNext()
		if err != nil || !ok || !marked && it.ID.Position() <= last[it.ID.Lane()] {
			t.Fatalf("%s: at %d behind %d: %v %v", name, it.ID.Position(), last[it.ID.Lane()], ok, err)
		}
		q.Release(it.ID)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// What was mended is whole.
	s = openTest(t, o)
	if st := s.Stats(); st.SetAside > 0 || st.Lost > 0 || st.Unreadable > 0 {
		t.Errorf("at the next start: %+v", st)
	}
	for _, name := range []string{"bridge/a", "bridge/b"} {
		q, _ := s.Queue(name, QueueOptions{Ledger: true})
		if it, ok, err := q.TryNext(); err != nil || !ok || string(it.Msg.Payload) != "new" || q.Len() != 1 {
			t.Errorf("%s: %v %v %+v, length %d", name, ok, err, it, q.Len())
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return r
}

// smallRows looks at sessions, packet identifiers, retained messages and wills: what
// is there was stored once.
func (x *ruinSite) smallRows(t *testing.T, s *Store) {
	t.Helper()
	states, err := s.Sessions()
	if err != nil {
		t.Error(err)
	}
	for _, st := range states {
		for _, id := range st.Inbound {
			if st.ClientID != "two" || id == 0 || id > ruinInbound {
				t.Errorf("a packet identifier of nobody: %s %d", st.ClientID, id)
			}
		}
	}
	retained, err := s.Retained()
	if err != nil {
		t.Error(err)
	}
	for _, m := range retained {
		if key, n, err := ruinMessage(m.Payload); err != nil || n >= x.sent[key] {
			t.Errorf("retained: %s %d %v", key, n, err)
		}
	}
	if _, err := s.Wills(); err != nil {
		t.Error(err)
	}
}

// drained reads all of a queue, and compares its books with what is known of it.
// last is where the last message of each lane was.
func (x *ruinSite) drained(t *testing.T, q *Queue, marked bool) (r ruinReport, last map[holdfast.Lane]uint64) {
	t.Helper()
	came := map[string]int{}
	last = map[holdfast.Lane]uint64{}
	for {
		it, ok, err := q.TryNext()
		if err != nil {
			t.Fatalf("%s: %v", q.name, err)
		}
		if !ok {
			break
		}
		key, n, err := ruinMessage(it.Msg.Payload)
		lane := it.ID.Lane()
		switch {
		case err != nil:
			t.Fatalf("%s: %v", q.name, err)
		case key != ruinKey(q.name, lane) || n >= x.sent[key]:
			t.Fatalf("%s, lane %d: it has %d of %s", q.name, lane, n, key)
		case it.ID.Position() != uint64(n)+1 || it.ID.Position() <= last[lane]:
			t.Fatalf("%s: %d is at %d, behind %d", q.name, n, it.ID.Position(), last[lane])
		}
		last[lane] = it.ID.Position()
		came[key]++
		q.Ack(it.ID)
	}
	if q.Len() != 0 {
		t.Errorf("%s: %d are left that never come", q.name, q.Len())
	}
	missing := 0
	for _, lane := range urgency {
		key := ruinKey(q.name, lane)
		r.came += came[key]
		missing += max(0, x.sent[key]-x.acked[key]-came[key])
	}
	if q.session {
		return r, last // it keeps no books
	}
	for route, c := range q.Ledger() {
		if !c.Balanced() {
			t.Errorf("%s, route %q: %+v", q.name, route, c)
		}
		r.lost += int(c.Lost)
	}
	if r.unseen = max(0, missing-r.lost); r.unseen > 0 && !marked {
		t.Errorf("%s: %d are missing, %d are counted as lost", q.name, missing, r.lost)
	}
	return r, last
}
