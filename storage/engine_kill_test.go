package storage

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// The engine below a store, killed at any moment: every row is as the last
// transaction has left it, and none that was deleted is back. What transaction n
// does is decided by the seed and n.

const (
	lastRow    = "a" // the number of the last transaction
	smallRows  = "k" // what is compared
	fillRows   = "b" // what fills memtables, in chunks that are dropped
	chunkTxns  = 40
	keptChunks = 3
)

// engineTxn is transaction n.
func engineTxn(seed, n uint64) (ops []op) {
	rng := rand.New(rand.NewPCG(seed, n))
	ops = append(ops, op{key: []byte(lastRow), value: fmt.Append(nil, n)})
	for range 1 + rng.IntN(6) {
		o := op{key: fmt.Appendf(nil, smallRows+"%03d", rng.IntN(100))}
		if rng.IntN(2) == 0 {
			o.value = fmt.Append(nil, n)
		}
		ops = append(ops, o)
	}
	fill := op{key: fmt.Appendf(nil, fillRows+"%06d%08d", n/chunkTxns, n), value: make([]byte, rng.IntN(512<<10))}
	return append(ops, fill)
}

// apply does to rows what transaction n does.
func applyTxn(rows map[string]string, seed, n uint64) {
	for _, o := range engineTxn(seed, n) {
		switch {
		case !bytes.HasPrefix(o.key, []byte(smallRows)):
		case o.value == nil:
			delete(rows, string(o.key))
		default:
			rows[string(o.key)] = string(o.value)
		}
	}
}

// engineChild prints what it finds, and then each transaction that is durable,
// until it is killed.
func engineChild(dir string, seed uint64) error {
	log := Options{}.withDefaults().Logger
	if _, err := guard(dir, log, deepBytes); err != nil {
		return err
	}
	e, err := openBadger(dir, log)
	if err != nil {
		return err
	}
	v, err := e.get([]byte(lastRow))
	if err != nil {
		return err
	}
	n, _ := strconv.ParseUint(string(v), 10, 64)
	var text strings.Builder
	fmt.Fprint(&text, "open ", n)
	err = e.scan([]byte(smallRows), nil, false, func(k, v []byte) bool {
		fmt.Fprintf(&text, " %s=%s", k, v)
		return true
	})
	if err != nil {
		return err
	}
	fmt.Println(text.String())

	// Readers stay for some transactions; none is there during a drop.
	var reading sync.RWMutex
	turn := make(chan uint64)
	var passed [][]byte
	for range 2 {
		go func() {
			for range turn {
				reading.RLock()
				_ = e.scan([]byte(smallRows), nil, true, func([]byte, []byte) bool {
					for n := range turn {
						if n%7 == 0 {
							break
						}
					}
					return false
				})
				reading.RUnlock()
			}
		}()
	}
	for {
		n++
		if err := e.commit(engineTxn(seed, n)); err != nil {
			return err
		}
		fmt.Println("safe", n)
		select {
		case turn <- n:
		default:
		}
		if chunk := n / chunkTxns; n%chunkTxns == 0 && chunk > keptChunks {
			passed = append(passed, fmt.Appendf(nil, fillRows+"%06d", chunk-keptChunks-1))
			for !reading.TryLock() {
				turn <- 0
			}
			err := e.drop(passed)
			reading.Unlock()
			switch {
			case err == nil:
				passed = nil
			case !errors.Is(err, errFlushing): // then with the next ones
				return err
			}
		}
	}
}

// TestAKilledEngineHasEveryRowAsItWas kills it 8 times;
// HOLDFAST_KILLS=SEED,KILLS does so more often.
func TestAKilledEngineHasEveryRowAsItWas(t *testing.T) {
	t.Parallel()
	seed, kills := rand.Uint64(), 8
	if v := os.Getenv("HOLDFAST_KILLS"); v != "" {
		if _, err := fmt.Sscanf(v, "%d,%d", &seed, &kills); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	rows, at, safe := map[string]string{}, uint64(0), uint64(0)
	for kill := range kills {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "HOLDFAST_TEST_CHILD="+dir, fmt.Sprint("HOLDFAST_TEST_ENGINE=", seed))
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		die := func() { _ = cmd.Process.Kill() }
		// While it opens, a moment later, or in the middle of its work.
		after := -1
		if rng.IntN(3) == 0 {
			die := time.AfterFunc(time.Duration(rng.IntN(100))*time.Millisecond, die)
			defer die.Stop()
		} else {
			after = rng.IntN(200)
		}
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 1<<20)
		for n := 0; lines.Scan(); n++ {
			what, rest, _ := strings.Cut(lines.Text(), " ")
			switch what {
			case "open":
				list := strings.Fields(rest)
				last, _ := strconv.ParseUint(list[0], 10, 64)
				if last != safe && last != safe+1 {
					t.Fatalf("kill %d: the last transaction is %d, and %d was durable", kill, last, safe)
				}
				for safe = last; at < last; {
					at++
					applyTxn(rows, seed, at)
				}
				if got := list[1:]; !slices.Equal(got, rowList(rows)) {
					t.Fatalf("kill %d, transaction %d:\n%v\nand not\n%v", kill, last, got, rowList(rows))
				}
			case "safe":
				safe, _ = strconv.ParseUint(rest, 10, 64)
			default:
				t.Fatal(lines.Text())
			}
			if n == after {
				die()
			}
		}
		_ = cmd.Wait()
	}
	t.Logf("%d transactions", safe)
}

func rowList(rows map[string]string) (list []string) {
	for _, k := range slices.Sorted(maps.Keys(rows)) {
		list = append(list, k+"="+rows[k])
	}
	return list
}
