package crash

import (
	"bytes"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"holdfast/cmd/holdfast/client"
	"holdfast/edge/packet"
)

// check feeds a destination with messages of one source and returns the faults.
func check(once, gaps bool, seqs ...uint64) []string {
	f := &faults{}
	d := newDestination("there", 7, f)
	d.once["a"], d.gaps["a"] = once, gaps
	for _, seq := range seqs {
		d.arrived(payload(7, stamp{"a", seq}))
	}
	for source, n := range d.missing(map[string]uint64{"a": 5}) {
		f.add("%s: %d missing", source, n)
	}
	list, _ := f.all()
	return list
}

func TestDestinationNoticesWhatIsLostLateRepeatedOrMissing(t *testing.T) {
	for _, c := range []struct {
		name       string
		once, gaps bool
		seqs       []uint64
		want       string // "" is no fault
	}{
		{"all", true, false, []uint64{1, 2, 3, 4, 5}, ""},
		{"repeated with QoS 1", false, false, []uint64{1, 2, 1, 2, 3, 4, 5, 3}, ""},
		{"repeated with QoS 2", true, false, []uint64{1, 2, 2, 3, 4, 5}, "come twice"},
		{"one dropped", false, false, []uint64{1, 2, 4, 5}, "1 messages between them are lost or late"},
		{"two swapped", false, false, []uint64{1, 3, 2, 4, 5}, "lost or late"},
		{"the last missing", false, false, []uint64{1, 2, 3, 4}, "1 missing"},
		{"all missing", false, false, nil, "5 missing"},
		{"gaps with QoS 0", false, true, []uint64{2, 5}, ""},
	} {
		got := strings.Join(check(c.once, c.gaps, c.seqs...), "; ")
		if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestPayloadNoticesEveryChangedByte(t *testing.T) {
	for seq := range uint64(200) {
		b := payload(1, stamp{"a", seq})
		if st, err := parse(1, b); err != nil || st != (stamp{"a", seq}) {
			t.Fatalf("%v %v", st, err)
		}
		if _, err := parse(2, b); err == nil {
			t.Fatal("a payload of another seed was taken")
		}
	}
	whole := payload(1, stamp{"a", 3})
	for i := range whole {
		b := bytes.Clone(whole)
		b[i] ^= 1
		if st, err := parse(1, b); err == nil {
			t.Errorf("byte %d was changed, and it is %v", i, st)
		}
		if _, err := parse(1, whole[:i]); err == nil {
			t.Errorf("cut after %d bytes", i)
		}
	}
}

func TestPlanIsRepeatedByItsSeed(t *testing.T) {
	o := Options{Seed: 9, KillMin: 1, KillMax: 1e9}
	if a, b := fmt.Sprint(newPlan(o, 3)), fmt.Sprint(newPlan(o, 3)); a != b {
		t.Errorf("%s\n%s", a, b)
	}
	other := o
	other.Seed = 10
	if fmt.Sprint(newPlan(o, 3)) == fmt.Sprint(newPlan(other, 3)) || fmt.Sprint(newPlan(o, 3)) == fmt.Sprint(newPlan(o, 4)) {
		t.Error("other seeds and rounds decide the same")
	}
}

func TestRetainedValueMayBeTheLastAcknowledgedOrALaterOne(t *testing.T) {
	topic := stateTopic(1)
	var seqs []uint64
	for seq := uint64(1); len(seqs) < 4; seq++ {
		if stateTopic(seq) == topic && seq%clearEvery != 0 {
			seqs = append(seqs, seq)
		}
	}
	got := possible(topic, seqs[1], seqs[2])
	if !slices.Equal(got, seqs[1:3]) {
		t.Errorf("%v of %v", got, seqs)
	}
	if got := possible(topic, 0, 0); !slices.Equal(got, []uint64{0}) {
		t.Errorf("before the first: %v", got)
	}
}

func TestPublisherNoticesWrongAcknowledgements(t *testing.T) {
	for _, c := range []struct {
		name string
		qos  byte
		acks string // letters of types with numbers of messages
		want string
	}{
		{"in order", 1, "a1 a2 a3", ""},
		{"out of order", 1, "a2", "before 1"},
		{"unknown", 1, "a1 a1", "not in flight"},
		{"PUBREC for QoS 1", 1, "r1", "QoS 1"},
		{"exactly once", 2, "r1 r2 c1 r3 c3 c2", ""},
		{"PUBREC twice", 2, "r1 r1 c1", ""},
		{"PUBREC out of order", 2, "r2", "before 1"},
		{"PUBCOMP too early", 2, "c1", "QoS 2"},
	} {
		p := &publisher{qos: c.qos, window: 10, next: 4, inflight: []flight{{seq: 1}, {seq: 2}, {seq: 3}}}
		var err error
		for ack := range strings.FieldsSeq(c.acks) {
			kind := map[byte]packet.Type{'a': packet.PUBACK, 'r': packet.PUBREC, 'c': packet.PUBCOMP}[ack[0]]
			if _, e := p.acknowledged(kind, p.packetID(uint64(ack[1]-'0'))); e != nil {
				err = e
			}
		}
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestSubscriberTakesARepeatedQoS2PublishOnce(t *testing.T) {
	f := &faults{}
	d := newDestination("there", 7, f)
	d.once["a"] = true
	s := &subscriber{name: "s", to: d, faults: f}
	near, other := net.Pipe()
	defer near.Close()
	go func() { // answers are of no interest; ends with the pipe
		for buf := make([]byte, 100); ; {
			if _, err := other.Read(buf); err != nil {
				return
			}
		}
	}()
	c := &client.Client{Conn: near}
	one := packet.Publish{QoS: 2, PacketID: 5, Payload: payload(7, stamp{"a", 1})}
	again := one
	again.Dup = true
	two := packet.Publish{QoS: 2, PacketID: 5, Payload: payload(7, stamp{"a", 2})}
	s.exactlyOnce(c, &one)
	s.exactlyOnce(c, &again)
	if list, _ := f.all(); len(list) > 0 {
		t.Fatal(list)
	}
	s.exactlyOnce(c, &two) // the identifier was not released
	if list, _ := f.all(); len(list) != 1 || !strings.Contains(list[0], "another message") {
		t.Fatal(list)
	}
}
