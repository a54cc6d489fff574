package sim

import "context"

// The limits of the module's MQTT client (Eigencomm ECMT).
const (
	maxHost     = 127
	maxClientID = 48
	maxUser     = 48
	maxPassword = 128
	maxTopic    = 255
	maxWill     = 255
	// maxMessage is the payload, maxRawMessage what holds it on the command
	// line: two quotes more, and a NUL that is not counted here.
	maxMessage    = 1024
	maxRawMessage = 1026
	// maxPacket is each of the two packet buffers: 4 + 128 + 1024 bytes. A
	// long topic and a long payload do not fit together.
	maxPacket = 1156
	// queueDepth is how many publishes and subscribes wait for the send task.
	queueDepth = 6
	// maxPingRetries and maxRefusals end a connection that is not one.
	maxPingRetries = 3
	maxRefusals    = 3
	// safeWindow is the number of open publishes that a careful host keeps to.
	safeWindow = 5

	manualHost, manualPassword, manualInline = 100, 96, 700

	defaultClientID = "ecmt_client"
)

// mqttState is that of the one MQTT context.
type mqttState int

const (
	stateIdle mqttState = iota
	stateOpening
	stateOpened
	stateConnecting
	stateConnected // CONNECT was sent; nobody has looked at the answer yet
	stateReconnecting
)

// mqttContext is what AT+ECMTCFG and AT+ECMTOPEN build up and what
// AT+ECMTDISC, AT+ECMTCLOSE and a failed AT+ECMTOPEN throw away as a whole.
type mqttContext struct {
	ctx    context.Context
	cancel context.CancelFunc

	state mqttState
	cfg   mqttConfig
	host  string
	port  int

	clientID, user, password string

	sess     *session
	queue    []job // not yet with the send task
	inHand   bool  // the send task has one
	inflight map[int]bool
	waiter   func(lost bool) // a publish that waits for a place in the queue
	refused  int             // CONNACKs in a row that were refusals
}

func newContext(parent context.Context) *mqttContext {
	ctx, cancel := context.WithCancel(parent)
	return &mqttContext{
		ctx: ctx, cancel: cancel,
		cfg:      defaultConfig(),
		clientID: defaultClientID,
		inflight: make(map[int]bool),
	}
}

// job is one packet for the send task. done runs on the engine goroutine.
type job struct {
	packet []byte
	err    error // it could not be made; do not send
	done   func(err error)
}

// dropContext is the end of a context with all that it was told.
func (m *Module) dropContext() {
	m.dropSession()
	m.mq = newContext(m.ctx)
}

// dropSession closes the connection without a word to the broker.
func (m *Module) dropSession() {
	m.mq.cancel()
	if s := m.mq.sess; s != nil {
		s.stop()
	}
}

// slots is how much of the queue is taken.
func (m *Module) slots() int {
	mq := m.mq
	n := len(mq.queue)
	if mq.inHand {
		n++
	}
	if m.snaps(m.traps.HoldSlots) {
		n = max(n, len(mq.inflight))
	}
	return n
}

// push queues j for the send task.
func (m *Module) push(j job) {
	m.mq.queue = append(m.mq.queue, j)
	m.pull()
}

// pull gives the send task its next packet, and a waiting publish its place.
func (m *Module) pull() {
	mq := m.mq
	for !mq.inHand && len(mq.queue) > 0 && mq.state == stateConnected && mq.sess != nil {
		j := mq.queue[0]
		mq.queue = mq.queue[1:]
		s := mq.sess
		tell := j.done
		j.done = func(err error) {
			if m.mq == mq && mq.sess == s {
				mq.inHand = false
			}
			if m.mq != mq {
				return
			}
			tell(err)
			if err != nil && j.err == nil {
				m.lost(s, false) // found by a send, it is not announced
			}
			m.pull()
		}
		mq.inHand = true
		s.send(j)
	}
	if mq.waiter != nil && m.slots() < queueDepth {
		w := mq.waiter
		mq.waiter = nil
		w(false)
	}
}

// resetQueue is xQueueReset: what waits vanishes without a URC.
func (m *Module) resetQueue() {
	n := len(m.mq.queue)
	m.mq.queue = nil
	m.stats.count(func(s *Stats) { s.PublishLost += n })
}

// setParams checks that c sets something, and that its first parameter is the
// one connection id there is.
func setParams(c call) (*args, bool) {
	a := &args{s: c.args}
	a.int(0, 0)
	return a, c.form == formSet && !a.bad
}

// refuseLimit is notAllowed, and counts a parameter that was too long.
func (m *Module) refuseLimit(a *args) outcome {
	if a.over {
		m.stats.mistake(MistakeLimit)
	}
	return notAllowed
}

// limit is the firmware's bound, or the manual's under that trap.
func (m *Module) limit(firmware, manual int) int {
	if m.snaps(m.traps.DocLimits) {
		return manual
	}
	return firmware
}
