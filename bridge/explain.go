package bridge

import (
	"time"

	"holdfast"
)

// Explanation is what a route out would do with a message.
type Explanation struct {
	Route string
	// Owner is false if an earlier route has the message.
	Owner bool
	// Remote is the topic at the far broker.
	Remote string
	QoS    byte
	Retain bool // a RETAIN flag is kept
	Lane   holdfast.Lane
	// Encoding is the form of the payload.
	Encoding Encoding
	// As in Route.
	Sample          time.Duration
	OnChange, Stamp bool
}

// Explain returns every route out that matches a local topic, in their order:
// the first owns its messages. Routes that are not valid are left out.
func Explain(routes []Route, name string) (list []Explanation) {
	for _, r := range routes {
		if !r.Direction.out() || r.Validate() != nil {
			continue
		}
		o := newOutRoute(r)
		if to, ok := o.toRemote(name); ok {
			list = append(list, Explanation{
				Route: nameOf(r), Owner: len(list) == 0, Remote: to, QoS: r.QoS, Retain: r.Retain, Lane: r.Lane,
				Encoding: r.Encoding,
				Sample:   r.Sample, OnChange: r.OnChange, Stamp: r.Stamp,
			})
		}
	}
	return list
}

// WireSize is about how many bytes a message of the given topic and payload costs
// in both directions: the publish and its answers (MQTT 3.1.1, 3.3), each with
// the headers of TCP/IP and, with TLS, of a record, and the bare TCP
// acknowledgement of the last. A backlog costs less for each, because many share
// a segment; a lossy link costs more.
func WireSize(topicLen, payload int, qos byte, tls bool) int {
	const tcpip, record, answer = 52, 22, 4
	overhead := tcpip
	if tls {
		overhead += record
	}
	size := 2 + topicLen + payload
	packets := 1
	if qos > 0 {
		size += 2 // packet identifier
	}
	header := 2
	for n := size; n > 127; n >>= 7 {
		header++
	}
	size += header
	switch qos {
	case 1:
		size, packets = size+answer, 2
	case 2:
		size, packets = size+3*answer, 4
	}
	return size + packets*overhead + tcpip
}
