package sim

import (
	"bytes"
	"strconv"
)

const (
	// pendingMax bounds what waits while a command executes. When it is met,
	// everything that waits is discarded without a word (Eigencomm AT decoder).
	pendingMax = 4096
	// lineMax bounds one command line; a CA certificate is the longest.
	lineMax = 8192
)

// lineState is the command line interpreter: V.250 5.2, as the firmware has it.
type lineState struct {
	buf     []byte    // of the line that is being read
	sent    int64     // of the chunk in which that line began
	data    *dataMode // not nil after a prompt
	busy    bool      // a command is executing; input waits in pending
	off     bool      // booting: input is lost
	fresh   bool      // nothing was executed since the boot
	feeding bool      // feed is running; what is pending comes after its chunk
	pending []chunk
	waiting int // bytes in pending
	// finalAt is where in the output the last final result or prompt ends.
	finalAt int64
}

// receive takes what the line gave.
func (m *Module) receive(c chunk) {
	l := &m.line
	switch {
	case l.off:
	case m.wrongBaud():
		m.stats.mistake(MistakeBaud)
	case !l.busy:
		m.feed(c)
	case l.waiting+len(c.b) > pendingMax:
		m.overflow()
	default:
		l.pending = append(l.pending, c)
		l.waiting += len(c.b)
	}
}

func (m *Module) overflow() {
	l := &m.line
	l.pending, l.waiting, l.buf = nil, 0, nil
	m.stats.mistake(MistakeOverflow)
}

// feed runs the input through the interpreter until it is used up or a command
// that takes its time is met.
func (m *Module) feed(c chunk) {
	l := &m.line
	l.feeding = true
	defer func() { l.feeding = false }()
	for i, b := range c.b {
		switch {
		case l.data != nil:
			m.feedData(chunk{c.b[i:], c.sent})
			return
		case l.busy:
			l.pending = append([]chunk{{c.b[i:], c.sent}}, l.pending...)
			l.waiting += len(c.b) - i
			return
		case b == '\r':
			line := l.buf
			l.buf = nil
			m.execute(line)
		case len(l.buf) == 0 && (b == '\n' || b == esc || b == ctrlZ):
			// Of a CR LF, or of a host that makes sure that no prompt waits.
		case len(l.buf) >= lineMax:
			m.overflow()
			return
		default:
			if len(l.buf) == 0 {
				l.sent = c.sent
				if l.sent < l.finalAt {
					m.stats.mistake(MistakeOverlap)
				}
			}
			l.buf = append(l.buf, b)
		}
	}
}

// resume takes up what came while a command was executing.
func (m *Module) resume() {
	l := &m.line
	for len(l.pending) > 0 && !l.busy && !l.feeding {
		c := l.pending[0]
		l.pending = l.pending[1:]
		l.waiting -= len(c.b)
		m.feed(c)
	}
}

// execute runs one command line. Whatever stands before AT is ignored (V.250
// 5.2.1); a line without it is not answered.
func (m *Module) execute(line []byte) {
	l := &m.line
	if len(bytes.TrimSpace(line)) == 0 {
		return
	}
	at := indexAT(line)
	if at < 0 {
		m.stats.mistake(MistakeNotAT)
		return
	}
	if l.fresh {
		l.fresh = false
		if m.snaps(m.traps.EarlyLoss) {
			return
		}
	}
	if m.snaps(m.traps.EchoReturns) {
		m.set.echo = true
	}
	if m.set.echo {
		m.emit(append(bytes.Clone(line), '\r'))
	}
	m.stats.count(func(s *Stats) { s.Commands++ })
	if m.snaps(m.traps.Deaf) {
		return
	}
	if bytes.ContainsFunc(line, func(r rune) bool { return r < ' ' }) {
		m.stats.mistake(MistakeControl)
	}
	calls, ok := parseLine(string(line[at+2:]))
	var r reply
	if !ok {
		m.finish(&r, outcome{code: cmeNotSupported})
		return
	}
	o := outcome{}
	for _, c := range calls {
		if o = m.dispatch(c, &r); o.code != 0 || o.wait != nil || o.data != nil {
			break
		}
		if o.then != nil {
			r.then = append(r.then, o.then)
		}
	}
	switch {
	case o.data != nil:
		m.prompt(o.data)
	case o.wait != nil:
		l.busy = true
		boots := m.boots()
		o.wait(func(code int) {
			if boots == m.boots() {
				m.finish(&r, outcome{code: code})
			}
		})
	default:
		m.finish(&r, o)
	}
}

// finish writes the reply with its final result, or arranges for that.
func (m *Module) finish(r *reply, o outcome) {
	m.line.busy = true
	if o.final != "" {
		r.final = o.final
	}
	switch {
	case m.snaps(m.traps.LateOK):
		m.after(m.opt.LateBy, func() { m.final(r, o.code) })
	case m.snaps(m.traps.URCFirst):
		m.after(urcFirstBy, func() { m.final(r, o.code) })
	default:
		m.final(r, o.code)
	}
}

func (m *Module) final(r *reply, code int) {
	var b []byte
	for i, s := range r.lines {
		if i > 0 && m.snaps(m.traps.URCInReply) {
			b = m.appendURC(b, m.strayURC())
		}
		b = appendLine(b, s)
	}
	b = append(b, r.raw...)
	if m.snaps(m.traps.URCInReply) {
		b = m.appendURC(b, m.strayURC())
	}
	if r.final != "" && code == 0 {
		b = appendLine(b, r.final)
	} else {
		b = appendLine(b, m.finalText(code))
	}
	m.line.finalAt = m.emit(m.garble(b))
	m.line.busy = false
	for _, f := range r.then {
		f()
	}
	m.resume()
}

func (m *Module) finalText(code int) string {
	switch {
	case code == 0:
		return "OK"
	case m.set.cmee == 1:
		return "+CME ERROR: " + strconv.Itoa(code)
	case m.set.cmee == 2:
		return "+CME ERROR: " + cmeText(code)
	}
	return "ERROR"
}

// urc writes one unsolicited line, unless the module is booting.
func (m *Module) urc(s string) {
	if !m.line.off {
		m.emit(m.garble(m.appendURC(nil, s)))
	}
}

func (m *Module) appendURC(b []byte, s string) []byte {
	m.stats.count(func(st *Stats) { st.URCs++ })
	return appendLine(b, s)
}

func (m *Module) garble(b []byte) []byte {
	if m.snaps(m.traps.Noise) {
		return m.noise(len(b))
	}
	return b
}

// emit gives b to the line and returns where it ends in the output.
func (m *Module) emit(b []byte) int64 {
	if m.wrongBaud() {
		b = m.noise(len(b))
	}
	return m.uart.put(b)
}

// appendLine frames a line as the firmware does everywhere: CR LF on both
// sides.
func appendLine(b []byte, s string) []byte {
	b = append(b, "\r\n"...)
	b = append(b, s...)
	return append(b, "\r\n"...)
}

func indexAT(b []byte) int {
	for i := 0; i+1 < len(b); i++ {
		if b[i]|0x20 == 'a' && b[i+1]|0x20 == 't' {
			return i
		}
	}
	return -1
}
