package crash

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"holdfast"
	"holdfast/cmd/holdfast/client"
	"holdfast/edge/packet"
)

// stateTopics is how many topics have a retained value.
const stateTopics = 8

// clearEvery: one change in so many removes the value.
const clearEvery = 13

func stateTopic(seq uint64) string { return fmt.Sprintf("state/%d", seq*2654435761%97%stateTopics) }

func (r *run) stateBody(seq uint64) []byte {
	if seq%clearEvery == 0 {
		return nil
	}
	return payload(r.o.Seed, stamp{"state", seq})
}

// possible are the numbers of the messages that a topic's retained value may be
// of: the last that was acknowledged, and each that was sent after it. 0 stands
// for no value.
func possible(topic string, acked, sent uint64) (list []uint64) {
	last := uint64(0)
	for seq := acked; seq > 0; seq-- {
		if stateTopic(seq) == topic {
			last = seq
			break
		}
	}
	list = append(list, value(last))
	for seq := acked + 1; seq <= sent; seq++ {
		if stateTopic(seq) == topic {
			list = append(list, value(seq))
		}
	}
	return list
}

func value(seq uint64) uint64 {
	if seq%clearEvery == 0 {
		return 0
	}
	return seq
}

// checkRetained lets a new subscriber see what is retained. Nothing may be
// published meanwhile.
func (r *run) checkRetained(ctx context.Context) error {
	acked := r.state.ackedUpTo()
	sent, _ := r.state.figures()
	c, err := client.Dial(ctx, r.address, packet.Connect{ClientID: "new", CleanStart: true})
	if err != nil {
		return err
	}
	defer c.Conn.Close()
	// One value more is the gateway's own: the state of its bridge.
	err = c.Subscribe(holdfast.Subscription{Filter: "state/#", QoS: 1}, holdfast.Subscription{Filter: "holdfast/#", QoS: 1})
	if err != nil {
		return err
	}
	c.Conn.SetReadDeadline(time.Now().Add(r.o.Patience))
	seen := map[string]uint64{}
	for want := -1; want < 0 || len(seen) < want; {
		p, err := c.NextPublish()
		if err != nil {
			r.faults.add("retained: the gateway has %d values (-1: not even its own) and sends %d: %v", want, len(seen), err)
			break
		}
		topic := string(p.Topic)
		if strings.HasPrefix(topic, "holdfast/") {
			st, err := r.gw.Status(ctx)
			if err != nil {
				return err
			}
			want = st.Broker.Retained - 1
			continue
		}
		got, err := parse(r.o.Seed, p.Payload)
		if err != nil || got.source != "state" || !p.Retain {
			r.faults.add("retained: %s: %v %v (RETAIN %v)", topic, got, err, p.Retain)
		}
		seen[topic] = got.seq
	}
	for i := range stateTopics {
		topic := "state/" + strconv.Itoa(i)
		if may := possible(topic, acked, sent); !slices.Contains(may, seen[topic]) {
			r.faults.add("retained: %s has the value of %d, it must be one of %s (0: none; acknowledged up to %d, sent up to %d)",
				topic, seen[topic], strings.Trim(fmt.Sprint(may), "[]"), acked, sent)
		}
	}
	return c.Disconnect()
}
