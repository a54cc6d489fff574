package queues

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"

	"holdfast"
)

func TestLinesComeBackAsTheyWere(t *testing.T) {
	for _, want := range []Line{
		{Seq: 1, Msg: &holdfast.Message{Topic: "a/b", QoS: 1, Payload: []byte(`{"t": "<21> °C\u2028"}`), Origin: "sensor"}},
		{Seq: 1 << 59, Lane: holdfast.High, Route: "alarms", Msg: &holdfast.Message{Topic: "ä", Payload: []byte{0xff, 0, 1}, Retain: true, Received: time.Unix(1700000000, 123456789).UTC()}},
		{Lane: holdfast.Low, Msg: &holdfast.Message{Topic: " ", QoS: 2, Payload: []byte{}, Properties: &holdfast.Properties{}}},
		{Msg: &holdfast.Message{Topic: "t", Payload: []byte("x"), Properties: &holdfast.Properties{PayloadBytes: true}}},
		{Msg: &holdfast.Message{Topic: "t", Payload: []byte("\x00\u2028\ufffd\\ud800"), Properties: &holdfast.Properties{
			PayloadUTF8: true, HasExpiry: true, ContentType: "c", ResponseTopic: "r", CorrelationData: []byte{0, 1},
			User: []holdfast.UserProperty{{Name: "n", Value: "v"}, {Name: "n"}}}}},
	} {
		b, err := want.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Count(b, []byte("\n")) != 1 || b[len(b)-1] != '\n' {
			t.Errorf("not one line: %s", b)
		}
		got, err := ParseLine(b)
		if err != nil {
			t.Errorf("%s: %v", b, err)
		} else if !reflect.DeepEqual(*got, want) {
			t.Errorf("%s\ngot  %+v %+v\nwant %+v %+v", b, got, got.Msg, want, want.Msg)
		}
	}
}

func TestBadLinesAreRefused(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{``, "cut off"},
		{`{"topic":"a","payload":"x","qos":1`, "cut off"},
		{`{"topic":"a","payload":"x","qos":1} {}`, "behind"},
		{`{"topic":"a","payload":"x"}`, "must have"},
		{`{"topic":"a","qos":1}`, "must have"},
		{`{"topic":"a","qos":1,"payload":"x","payload_base64":"eA=="}`, "must have"},
		{`{"topic":"a","qos":3,"payload":"x"}`, "qos is 3"},
		{`{"topic":"a","qos":"1","payload":"x"}`, "qos is a string"},
		{`{"topic":"a/#","qos":1,"payload":"x"}`, "no name of a topic"},
		{`{"topic":"","qos":1,"payload":"x"}`, "topic is empty"},
		{`{"topic":"a","qos":1,"payload_base64":"x"}`, "payload_base64"},
		{`{"topic":"a","qos":1,"payload":"x","lane":"fast"}`, "lane is"},
		{`{"topic":"a","qos":1,"payload":"x","prio":1}`, "prio"},
		{`{"topic":"a","qos":1,"payload":"\ud800"}`, "surrogate"},
		{`{"topic":"a","qos":1,"payload":"\ud800\u0041"}`, "surrogate"},
		{`{"topic":"a","qos":1,"payload":"x","received":"yesterday"}`, "yesterday"},
		{`{"topic":"a","qos":1,"payload":"x","received":"1066-10-14T09:00:00Z"}`, "1066"},
		{`{"topic":"a","qos":1,"payload":"` + "\xff" + `"}`, "not UTF-8"},
		{`[]`, "array"},
		{strings.Repeat("x", MaxLine+1), "more than"},
	} {
		l, err := ParseLine([]byte(c.line))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.80s: %+v, %v, want %s", c.line, l, err, c.want)
		}
	}
	if _, err := ParseLine([]byte(`{"topic":"a","qos":1,"payload":"\ud83d\ude00 \\ud800"}`)); err != nil {
		t.Error(err)
	}
}

// FuzzLine: whatever is read is written and read again as the same message.
func FuzzLine(f *testing.F) {
	f.Add([]byte(`{"seq":7,"topic":"a/b","payload":"x","qos":1,"retain":true,"route":"r","lane":"high","received":"2024-01-02T03:04:05.000000006Z","properties":{"expiry_seconds":1,"user":[["n","v"]]}}`))
	f.Add([]byte(`{"topic":"a","payload_base64":"/wA=","qos":0,"properties":{"correlation_data_base64":"AA=="}}`))
	f.Add([]byte(`{"topic":"a","payload":"\ud83d\ude00","qos":2}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := ParseLine(b)
		if err != nil {
			return
		}
		out, err := l.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseLine(out)
		if err != nil {
			t.Fatalf("%s: %v", out, err)
		}
		if !again.Msg.Received.Equal(l.Msg.Received) {
			t.Fatal(again.Msg.Received, l.Msg.Received)
		}
		again.Msg.Received = l.Msg.Received
		if !reflect.DeepEqual(l, again) {
			t.Fatalf("%s\ngot  %+v %+v\nwant %+v %+v", out, again, again.Msg, l, l.Msg)
		}
	})
}
