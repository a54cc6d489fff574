package edge

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"holdfast"
)

// The $SYS tree tells how the broker is, under the names that Mosquitto has for
// the same. Its messages are made here and go to subscribers and into the memory
// of retained messages only: never to the Sink, so neither to the disk nor over a
// bridge. They have QoS 0.

// sysPrefix begins the topics that are the broker's own: nobody else may publish
// there (MQTT 5, 4.7.2), neither a client nor a bridge.
const sysPrefix = "$SYS/"

func isSys(name string) bool { return name == "$SYS" || strings.HasPrefix(name, sysPrefix) }

// tellSys publishes what has changed, at each interval until Shutdown.
func (s *Server) tellSys() {
	if s.opts.SysInterval <= 0 {
		return
	}
	tick := time.NewTicker(s.opts.SysInterval)
	defer tick.Stop()
	last := make(map[string]string)
	most := 0
	for {
		st := s.Stats()
		most = max(most, st.Clients)
		for name, value := range s.sysTree(st, most) {
			if last[name] != value {
				last[name] = value
				s.publishSys(sysPrefix+"broker/"+name, value)
			}
		}
		select {
		case <-s.quit:
			return
		case <-tick.C:
		}
	}
}

// sysTree are the values by what is behind "$SYS/broker/". most is the largest
// number of clients that an interval has found connected.
func (s *Server) sysTree(st Stats, most int) map[string]string {
	number := func(n uint64) string { return strconv.FormatUint(n, 10) }
	away := st.Registered - st.Clients
	tree := map[string]string{
		"uptime":                     fmt.Sprintf("%d seconds", int(time.Since(s.started).Seconds())),
		"clients/total":              strconv.Itoa(st.Registered),
		"clients/connected":          strconv.Itoa(st.Clients),
		"clients/active":             strconv.Itoa(st.Clients),
		"clients/disconnected":       strconv.Itoa(away),
		"clients/inactive":           strconv.Itoa(away),
		"clients/maximum":            strconv.Itoa(most),
		"subscriptions/count":        strconv.Itoa(st.Subscriptions),
		"shared_subscriptions/count": strconv.Itoa(st.SharedSubscriptions),
		"retained messages/count":    strconv.Itoa(st.Retained),
		"publish/messages/received":  number(st.Received),
		"publish/messages/sent":      number(st.Sent),
		"publish/messages/dropped":   number(st.DroppedQoS0),
		"bytes/received":             number(st.BytesReceived),
		"bytes/sent":                 number(st.BytesSent),
	}
	if s.opts.Version != "" {
		tree["version"] = "holdfast version " + s.opts.Version
	}
	return tree
}

func (s *Server) publishSys(name, value string) {
	m := &holdfast.Message{Topic: name, Payload: []byte(value), Retain: true, Received: time.Now()}
	// In this order, and under the lock, for the reason that acceptRetained has.
	s.retained.mu.Lock()
	dests, _ := resolve(s.router.match(name), m)
	if _, there := s.retained.names.Get(name); !there {
		s.retained.sys++
	}
	s.retained.setLocked(m)
	s.retained.mu.Unlock()
	s.deliver(dests, m, 0, nil)
}
