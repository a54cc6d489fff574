package storage

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"

	"holdfast"
)

// child publishes from many goroutines and prints each message when it was
// promised; it ends by being killed.
func child(dir string) {
	if os.Getenv("HOLDFAST_TEST_DISK") != "" {
		diskChild(dir)
		return
	}
	if os.Getenv("HOLDFAST_TEST_CHURN") != "" {
		churnChild(dir)
		return
	}
	if os.Getenv("HOLDFAST_TEST_BARE") != "" {
		if _, err := openBadger(dir, Options{}.withDefaults().Logger); err != nil {
			fmt.Println("refused", err)
		}
		return
	}
	if v := os.Getenv("HOLDFAST_TEST_ENGINE"); v != "" {
		seed, err := strconv.ParseUint(v, 10, 64)
		if err == nil {
			err = engineChild(dir, seed)
		}
		fmt.Println("error", err)
		return
	}
	s, err := Open(Options{Dir: dir, ChunkBytes: 200 << 10, TailBytes: 20 << 10})
	if err != nil {
		fmt.Println("error", err)
		return
	}
	life := os.Getenv("HOLDFAST_TEST_LIFE")
	q, _ := s.Queue("bridge/a", QueueOptions{Ledger: true})
	out := bufio.NewWriter(os.Stdout)
	var mu sync.Mutex
	say := func(text string) {
		mu.Lock()
		fmt.Fprintln(out, text)
		out.Flush()
		mu.Unlock()
	}
	if os.Getenv("HOLDFAST_TEST_READ") != "" {
		go func() {
			for {
				it, err := q.Next(context.Background(), holdfast.AllLanes)
				if err != nil {
					return
				}
				say("read " + string(it.Msg.Payload))
				q.Ack(it.ID)
			}
		}()
	}
	var wg sync.WaitGroup
	for p := range 20 {
		wg.Go(func() {
			done := make(chan error)
			for i := range 100000 {
				m := &holdfast.Message{Topic: "t", QoS: 1, Payload: fmt.Appendf(nil, "%s.%d.%d.%s", life, p, i, strings.Repeat("x", 150))}
				if err := s.Publish(&holdfast.Publication{Msg: m}, []Append{{Queue: q, Route: "r", Msg: m}}, func(err error) { done <- err }); err != nil {
					say("error " + err.Error())
					return
				}
				if err := <-done; err != nil {
					say("error " + err.Error())
					return
				}
				say("safe " + string(m.Payload))
			}
		})
	}
	wg.Wait()
}

func TestEverythingPromisedIsThereAfterKill(t *testing.T) {
	dir := t.TempDir()
	promised, read := map[string]bool{}, map[string]bool{}
	lives := 5
	if testing.Short() {
		lives = 2
	}
	for life := range lives {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "HOLDFAST_TEST_CHILD="+dir, fmt.Sprint("HOLDFAST_TEST_LIFE=", life))
		if life%2 == 1 {
			cmd.Env = append(cmd.Env, "HOLDFAST_TEST_READ=1")
		}
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			what, payload, _ := strings.Cut(lines.Text(), " ")
			switch what {
			case "safe":
				promised[payload] = true
			case "read":
				read[payload] = true
			default:
				t.Fatal(lines.Text())
			}
			if n == 3000+life*700 {
				// What it has said until it is dead counts too.
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait()
	}

	s, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	q, err := s.Queue("bridge/a", QueueOptions{Ledger: true})
	if err != nil {
		t.Fatal(err)
	}
	n, found := q.Len(), 0
	last := map[string]int{}
	for {
		it, ok, err := q.TryNext()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			break
		}
		found++
		payload := string(it.Msg.Payload)
		delete(promised, payload)
		var life, p, i int
		fmt.Sscanf(payload, "%d.%d.%d.", &life, &p, &i)
		who := fmt.Sprint(life, ".", p)
		if before, ok := last[who]; ok && i <= before {
			t.Fatalf("%s: %d behind %d", who, i, before)
		}
		last[who] = i
		q.Ack(it.ID)
	}
	for payload := range promised {
		if !read[payload] {
			t.Errorf("lost %.20s", payload)
		}
	}
	c := q.Ledger()["r"]
	if found != n || !c.Balanced() || c.Queued != 0 || c.Lost != 0 || s.Stats().Lost != 0 {
		t.Fatalf("found %d of %d, %+v", found, n, c)
	}
	t.Logf("%+v", c)
}
