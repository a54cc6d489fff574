package bridge

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// bothSides publishes topics and reports how many went as a number. The far side must
// know each.
func bothSides(t *testing.T, most int, topics func(i int) string, n int) (short int) {
	t.Helper()
	a, far := newAliases(most), map[uint16]string{}
	for i := range n {
		topic := topics(i)
		id, told := a.of([]byte(topic))
		switch {
		case int(id) > most:
			t.Fatalf("alias %d of %d", id, most)
		case told && far[id] != topic:
			t.Fatalf("%q would arrive as %q", topic, far[id])
		case told:
			short++
		case id > 0:
			far[id] = topic
		}
		if len(a.seen) > 4*most+1 || len(a.byTop)+len(a.free) != most {
			t.Fatalf("%d seen, %d in use, %d free of %d", len(a.seen), len(a.byTop), len(a.free), most)
		}
	}
	return short
}

func TestAliasesBelongToTheTopicsThatComeOften(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	zipf := rand.NewZipf(rng, 1.5, 1, 999)
	const n = 10_000
	for _, tc := range []struct {
		name   string
		topics func(i int) string
		least  int // percent that go as a number
	}{
		{"few topics", func(i int) string { return fmt.Sprint(i % 10) }, 99},
		{"twice as many in turn", func(i int) string { return fmt.Sprint(i % 20) }, 49},
		{"once each at first", func(i int) string {
			if i < 100 {
				return fmt.Sprint("config", i)
			}
			return fmt.Sprint(i % 10)
		}, 98},
		{"another set each hour", func(i int) string { return fmt.Sprint(i/1000, "/", i%10) }, 90},
		{"a few of many", func(int) string { return fmt.Sprint(zipf.Uint64()) }, 65},
		{"always new", func(i int) string { return fmt.Sprint(i) }, 0},
	} {
		short := bothSides(t, 10, tc.topics, n)
		t.Logf("%s: %.1f %%", tc.name, float64(short)*100/n)
		if short < n*tc.least/100 {
			t.Errorf("%s: %d of %d went as a number", tc.name, short, n)
		}
	}
}

func TestAliasesThatTheBrokerDoesNotTake(t *testing.T) {
	t.Parallel()
	if id, _ := newAliases(0).of([]byte("a")); id != 0 {
		t.Error("it takes none")
	}
	if n := bothSides(t, 1, func(i int) string { return fmt.Sprint(i / 100) }, 1000); n < 900 {
		t.Errorf("with one %d of 1000", n)
	}
	a := newAliases(70000)
	for i := range 1000 {
		if id, _ := a.of(fmt.Append(nil, i)); id > maxAliases {
			t.Fatalf("alias %d", id)
		}
	}
	// One that the broker was never told is given again.
	b := newAliases(1)
	b.of([]byte("x"))
	b.drop([]byte("x"))
	if id, told := b.of([]byte("y")); id != 1 || told {
		t.Errorf("%d, %v", id, told)
	}
}

func FuzzAliases(f *testing.F) {
	f.Add([]byte("abcabc"), byte(2))
	f.Fuzz(func(t *testing.T, topics []byte, most byte) {
		bothSides(t, int(most), func(i int) string { return string(topics[i : i+1]) }, len(topics))
	})
}
