package gateway

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"holdfast"
	"holdfast/configs"
	"holdfast/storage"
)

// A file where the folder should be fails for root as well, as a card does that
// has gone read-only.
func TestAGatewayWithoutADiskRunsAndTells(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "data")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := configs.Default()
	cfg.Gateway.DataDir = file
	g := &Gateway{cfg: cfg, log: slog.New(slog.DiscardHandler)}
	if err := g.openStore(); err != nil {
		t.Fatal(err)
	}
	defer g.store.Close()
	if st := g.storage(); st.Mode != "memory" || !strings.Contains(st.Reason, "starts again") || !errors.Is(g.volatile, storage.ErrUnwritable) {
		t.Fatalf("%+v", st)
	}
	s := &sink{store: g.store, bridges: new(bridges)}
	var acked chan error // of the message that its subscriber will acknowledge
	for _, c := range []struct {
		name  string
		p     holdfast.Publication
		acked bool
	}{
		{"QoS 0", holdfast.Publication{Msg: &holdfast.Message{Topic: "t"}, Sessions: []holdfast.Delivery{{ClientID: "c"}}}, true},
		{"QoS 1 that nothing durable wants", holdfast.Publication{Msg: &holdfast.Message{Topic: "t", QoS: 1}}, true},
		{"QoS 1 for a durable session", holdfast.Publication{Msg: &holdfast.Message{Topic: "t", QoS: 1}, Sessions: []holdfast.Delivery{{ClientID: "c", QoS: 1}}}, false},
		{"retained", holdfast.Publication{Msg: &holdfast.Message{Topic: "t", QoS: 1, Retain: true}}, false},
	} {
		done := make(chan error, 1)
		if c.p.Msg.QoS == 1 && len(c.p.Sessions) > 0 {
			acked = done
		}
		stored := make(chan error, 1)
		if err := s.Accept(&c.p, func(err error) { done <- err }); err != nil {
			t.Fatal(err)
		}
		// The commit of the next change comes behind that of the message.
		g.store.SetWill("w", &holdfast.Will{Msg: &holdfast.Message{Topic: "w"}}, func(err error) { stored <- err })
		if err := <-stored; err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			if !c.acked || err != nil {
				t.Errorf("%s: acknowledged, %v", c.name, err)
			}
		default:
			if c.acked {
				t.Errorf("%s: not acknowledged", c.name)
			}
		}
	}
	q, err := g.store.SessionQueue("c")
	if err != nil || q.Len() != 2 {
		t.Fatalf("what is not acknowledged is delivered nonetheless: %d, %v", q.Len(), err)
	}
	for q.Len() > 0 {
		it, _, _ := q.TryNext()
		q.Ack(it.ID)
	}
	if err := <-acked; err != nil {
		t.Fatalf("its subscriber has acknowledged it: %v", err)
	}
}
