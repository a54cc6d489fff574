package sim

import (
	"encoding/json"
	"errors"
	"strings"
	"time"
)

// queueWait is how long a publish waits for a place in the queue. The firmware
// does not look at how the wait ended.
const queueWait = time.Second

var errTooLong = errors.New("packet does not fit the buffer")

// publish is one AT+ECMTPUB.
type publish struct {
	id     int
	qos    int
	retain bool
	topic  string
}

// ecmtPub is AT+ECMTPUB=0,id,qos,retain,"topic"[,payload]. The payload is the
// rest of the line, raw, less one quote on either side; without it a prompt
// asks for it.
func (m *Module) ecmtPub(c call, r *reply) outcome {
	if c.form == formTest {
		r.add(`+ECMTPUB: (0),<msgID>,<qos>,<retain>,"<topic>"[,"<payload>"]`)
		return done
	}
	a, ok := setParams(c)
	if !ok {
		return notAllowed
	}
	p := publish{id: a.int(0, 65535), qos: a.int(0, 2)}
	retain := a.int(0, 31) // the tens digit asks for an early release of the radio
	p.retain = retain%10 == 1
	p.topic = a.str(maxTopic)
	if a.bad || retain%10 > 1 || p.topic == "" {
		return m.refuseLimit(a)
	}
	if m.mq.state != stateConnected {
		m.stats.mistake(MistakeTooEarly)
		return notAllowed
	}
	if a.s == "" {
		return outcome{data: &dataMode{send: func(b []byte, over bool) outcome {
			if over || len(b) > maxRawMessage+1 {
				m.stats.mistake(MistakeLimit)
				return notAllowed
			}
			return m.publish(p, b)
		}}}
	}
	payload, ok := inlinePayload(a.s, m.limit(maxMessage, manualInline))
	if !ok {
		m.stats.mistake(MistakeLimit)
		return notAllowed
	}
	return m.publish(p, []byte(payload))
}

// inlinePayload takes the last parameter: what follows its comma, up to a NUL,
// since the firmware measures it with strlen.
func inlinePayload(s string, limit int) (string, bool) {
	s, ok := strings.CutPrefix(s, ",")
	s, _, _ = strings.Cut(s, "\x00")
	if !ok || s == "" || len(s) > maxRawMessage {
		return "", false
	}
	s = strings.TrimPrefix(s, `"`)
	s = strings.TrimSuffix(s, `"`)
	return s, len(s) <= limit
}

// publish queues p. It is answered with OK before anything was sent, and even
// when there was no place for it.
func (m *Module) publish(p publish, payload []byte) outcome {
	mq := m.mq
	if mq.state != stateConnected { // lost while the data came
		return notAllowed
	}
	payload, ok := cloudPayload(mq.cfg.cloud[0], payload)
	if !ok {
		return notAllowed
	}
	m.watch(p)
	admit := func() {
		if p.qos > 0 {
			mq.inflight[p.id] = true
		}
		m.push(m.publishJob(p, payload))
	}
	if m.slots() < queueDepth {
		admit()
		return done
	}
	return outcome{wait: func(answer func(int)) {
		var over bool
		end := func(lost bool) {
			if over {
				return
			}
			over = true
			if lost {
				m.stats.count(func(s *Stats) { s.PublishLost++ })
			} else {
				admit()
			}
			answer(0)
		}
		mq.waiter = end
		m.after(queueWait, func() {
			if !over {
				mq.waiter = nil
				end(true)
			}
		})
	}}
}

// watch counts what the host does wrong with identifiers.
func (m *Module) watch(p publish) {
	m.stats.count(func(s *Stats) { s.PublishQueued++ })
	if p.qos == 0 {
		return
	}
	mq := m.mq
	switch {
	case p.id == 0:
		m.stats.mistake(MistakeNoID)
	case mq.inflight[p.id]:
		m.stats.mistake(MistakeReusedID)
	}
	if len(mq.inflight) >= safeWindow {
		m.stats.mistake(MistakeWindow)
	}
}

func (m *Module) publishJob(p publish, payload []byte) job {
	mq := m.mq
	j := job{packet: publishPacket(p, payload)}
	if len(j.packet) > m.packetLimit() {
		j.err = errTooLong
	}
	j.done = func(err error) {
		if err == nil {
			m.stats.count(func(s *Stats) { s.PublishSent++ })
		}
		switch {
		case err == nil && p.qos == 0:
			m.published(p.id)
		case err == nil: // the broker's answer decides
		default:
			delete(mq.inflight, p.id)
			m.pubURC(p.id, 2)
		}
	}
	return j
}

// acked takes a PUBACK or PUBCOMP.
func (m *Module) acked(id int) {
	delete(m.mq.inflight, id)
	if !m.snaps(m.traps.LostAck) {
		m.published(id)
	}
	m.pull()
}

func (m *Module) published(id int) {
	m.stats.count(func(s *Stats) { s.PublishAcked++ })
	m.pubURC(id, 0)
}

// cloudPayload is what the platform modes do to a payload: both want JSON, and
// OneNET's puts its own three bytes before it.
func cloudPayload(cloud int, b []byte) ([]byte, bool) {
	switch cloud {
	case cloudOneNET:
		n := len(b)
		b = append([]byte{3, byte(n >> 8), byte(n)}, b...)
		return b, json.Valid(b[3:])
	case cloudAli:
		return b, json.Valid(b)
	}
	return b, true
}
