package sim

import "bytes"

const (
	ctrlZ = 0x1a
	esc   = 0x1b
)

// dataMode is what follows a prompt: bytes until a Ctrl-Z (send) or an ESC
// (cancel). The firmware has no count; it looks at the last byte of each
// transfer, and so ends too early wherever such a byte of the data happens to
// be the last one (Eigencomm ECMT).
type dataMode struct {
	buf  []byte
	over bool
	// need is the number of bytes, where the command has counted them: then no
	// byte has a meaning.
	need int
	// send takes the bytes, without the Ctrl-Z.
	send func(b []byte, over bool) outcome
}

// prompt writes "> ", which has no line ending.
func (m *Module) prompt(d *dataMode) {
	var b []byte
	if m.snaps(m.traps.URCBeforePrompt) {
		// Glued: the line end of the one is the line start of the other.
		b = m.appendURC(b, m.strayURC())
		b = b[:len(b)-2]
	}
	b = append(b, "\r\n> "...)
	m.line.data = d
	m.line.finalAt = m.emit(m.garble(b))
	if m.snaps(m.traps.URCAfterPrompt) {
		m.urc(m.strayURC())
	}
}

// feedData takes one transfer in data mode.
func (m *Module) feedData(c chunk) {
	l := &m.line
	d := l.data
	if len(d.buf) == 0 && c.sent < l.finalAt {
		m.stats.mistake(MistakeEarlyPayload)
	}
	if m.set.echo { // 3GPP TS 27.005 3.5.1: echo holds for data as well
		m.emit(bytes.Clone(c.b))
	}
	if d.need > 0 {
		n := min(d.need-len(d.buf), len(c.b))
		d.buf = append(d.buf, c.b[:n]...)
		if len(d.buf) < d.need {
			return
		}
		l.data = nil
		m.settle(d.send(d.buf, false))
		if rest := c.b[n:]; len(rest) > 0 { // what comes behind is a command
			l.pending = append([]chunk{{rest, c.sent}}, l.pending...)
			l.waiting += len(rest)
			l.feeding = false
			m.resume()
		}
		return
	}
	last := c.b[len(c.b)-1]
	b := c.b
	if last == ctrlZ || last == esc {
		b = b[:len(b)-1]
	}
	// What does not fit is not kept: the length alone says that it failed.
	if len(d.buf)+len(b) > pendingMax {
		d.over = true
	} else {
		d.buf = append(d.buf, b...)
	}
	switch last {
	case ctrlZ:
		l.data = nil
		m.settle(d.send(d.buf, d.over))
	case esc:
		l.data = nil
		m.finish(new(reply), outcome{})
	}
}
