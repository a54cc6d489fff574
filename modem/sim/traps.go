package sim

import (
	"fmt"
	"strings"
)

// Odds is how often a trap snaps: 0 never, 1 always, between them at random
// from Options.Seed.
type Odds float64

// Traps are what some firmware versions do, or what any does now and then.
// The zero value is a module that follows the firmware's plain behaviour.
type Traps struct {
	// The spelling of the result of AT+ECMTCONN; "+ECMTCONN: 0,0,5" is plain.
	ConnShort       Odds // +ECMTCON:0,0,5
	ConnShortSpaced Odds // +ECMTCON: 0,0,5
	ConnTight       Odds // +ECMTCONN:0,0,5

	DoubleConn  Odds // one CONN gives 0,2,2 and 130 ms later 0,0,0
	LostConnack Odds // the CONNACK is swallowed: no URC ever
	OpenWedge   Odds // OPEN answers OK and nothing comes
	OpenFails   Odds // OPEN reports -1
	LostAck     Odds // a PUBACK or PUBCOMP is swallowed: no +ECMTPUB
	HoldSlots   Odds // a publish keeps its place in the queue of six until it is acknowledged

	LateOK          Odds // the final result comes Options.LateBy late
	URCFirst        Odds // the OK comes after the URC that belongs behind it
	URCInReply      Odds // a URC between the lines of a reply
	URCBeforePrompt Odds // a URC glued to the prompt
	URCAfterPrompt  Odds // a URC between the prompt and the OK
	EchoReturns     Odds // echo is on again before a command
	Noise           Odds // an answer is noise of the same length
	Deaf            Odds // a command is not answered at all
	EarlyLoss       Odds // the first command after a boot is swallowed
	DoubleRDY       Odds // a boot says RDY twice

	QuotedRecv     Odds // the payload of +ECMTRECV is in quotes
	DocLimits      Odds // the manual's limits: host 100, password 96, in-line payload 700
	OutageBreaks   Odds // an outage breaks the connections instead of freezing them
	DeadNAT        Odds // connections that were open in an outage never carry a byte again
	QuietReconnect Odds // the firmware reconnects without +ECMTSTAT
	SpontaneousBye Odds // a lost connection is reported as +ECMTDISC: 0,0 and given up
	SocketErrors   Odds // +SOCKET ERROR: n instead of +CME ERROR: 3
	PushedBytes    Odds // +ECSONMI has the bytes with it, whatever was asked for
	NoSendAcks     Odds // no +ECSOSTR ever
	SendInfo       Odds // QISEND is answered with OK, and +QISEND follows
	OldPubName     Odds // QMTPUBEX is answered with +QMTPUB
	Resent         Odds // QMT: the result 1 (sent again) before the last
	BaudMatters    Odds // a host at another baud rate than the module's hears and sends noise
}

// Trap describes one trap by the name that Traps.Set takes.
type Trap struct{ Name, What string }

type trapField struct {
	Trap
	at func(*Traps) *Odds
}

var trapFields = []trapField{
	{Trap{"conn-short", "CONN results spelt +ECMTCON:0,0,5"}, func(t *Traps) *Odds { return &t.ConnShort }},
	{Trap{"conn-short-spaced", "CONN results spelt +ECMTCON: 0,0,5"}, func(t *Traps) *Odds { return &t.ConnShortSpaced }},
	{Trap{"conn-tight", "CONN results spelt +ECMTCONN:0,0,5"}, func(t *Traps) *Odds { return &t.ConnTight }},
	{Trap{"double-conn", "CONN gives 0,2,2 and then 0,0,0"}, func(t *Traps) *Odds { return &t.DoubleConn }},
	{Trap{"lost-connack", "no result of CONN ever comes"}, func(t *Traps) *Odds { return &t.LostConnack }},
	{Trap{"open-wedge", "OPEN answers OK and nothing comes"}, func(t *Traps) *Odds { return &t.OpenWedge }},
	{Trap{"open-fails", "OPEN reports -1"}, func(t *Traps) *Odds { return &t.OpenFails }},
	{Trap{"lost-ack", "acknowledgements of publishes are swallowed"}, func(t *Traps) *Odds { return &t.LostAck }},
	{Trap{"hold-slots", "a publish fills the queue of six until acknowledged"}, func(t *Traps) *Odds { return &t.HoldSlots }},
	{Trap{"late-ok", "final results come 12 s late"}, func(t *Traps) *Odds { return &t.LateOK }},
	{Trap{"urc-first", "the OK comes after the URC that belongs behind it"}, func(t *Traps) *Odds { return &t.URCFirst }},
	{Trap{"urc-in-reply", "a URC between the lines of a reply"}, func(t *Traps) *Odds { return &t.URCInReply }},
	{Trap{"urc-before-prompt", "a URC glued to the prompt"}, func(t *Traps) *Odds { return &t.URCBeforePrompt }},
	{Trap{"urc-after-prompt", "a URC between prompt and OK"}, func(t *Traps) *Odds { return &t.URCAfterPrompt }},
	{Trap{"echo-returns", "echo switches itself on again"}, func(t *Traps) *Odds { return &t.EchoReturns }},
	{Trap{"noise", "answers are noise"}, func(t *Traps) *Odds { return &t.Noise }},
	{Trap{"deaf", "commands are not answered at all"}, func(t *Traps) *Odds { return &t.Deaf }},
	{Trap{"early-loss", "the first command after a boot is swallowed"}, func(t *Traps) *Odds { return &t.EarlyLoss }},
	{Trap{"double-rdy", "a boot says RDY twice"}, func(t *Traps) *Odds { return &t.DoubleRDY }},
	{Trap{"quoted-recv", "received payloads are in quotes"}, func(t *Traps) *Odds { return &t.QuotedRecv }},
	{Trap{"doc-limits", "the manual's limits: host 100, password 96, in-line payload 700"}, func(t *Traps) *Odds { return &t.DocLimits }},
	{Trap{"outage-breaks", "an outage breaks connections instead of freezing them"}, func(t *Traps) *Odds { return &t.OutageBreaks }},
	{Trap{"dead-nat", "connections never carry a byte again after an outage"}, func(t *Traps) *Odds { return &t.DeadNAT }},
	{Trap{"quiet-reconnect", "the firmware reconnects without +ECMTSTAT"}, func(t *Traps) *Odds { return &t.QuietReconnect }},
	{Trap{"spontaneous-bye", "a lost connection is reported as +ECMTDISC: 0,0"}, func(t *Traps) *Odds { return &t.SpontaneousBye }},
	{Trap{"socket-errors", "sockets fail with +SOCKET ERROR"}, func(t *Traps) *Odds { return &t.SocketErrors }},
	{Trap{"pushed-bytes", "sockets push what has come"}, func(t *Traps) *Odds { return &t.PushedBytes }},
	{Trap{"no-send-acks", "sends through sockets are not acknowledged"}, func(t *Traps) *Odds { return &t.NoSendAcks }},
	{Trap{"send-info", "QISEND is answered with OK, and +QISEND follows"}, func(t *Traps) *Odds { return &t.SendInfo }},
	{Trap{"old-pub-name", "QMTPUBEX is answered with +QMTPUB"}, func(t *Traps) *Odds { return &t.OldPubName }},
	{Trap{"resent", "a publish is reported as sent again first (qmt)"}, func(t *Traps) *Odds { return &t.Resent }},
	{Trap{"baud-matters", "a wrong baud rate gives noise both ways"}, func(t *Traps) *Odds { return &t.BaudMatters }},
}

// AllTraps lists every trap in the order of the documentation.
func AllTraps() []Trap {
	l := make([]Trap, len(trapFields))
	for i, f := range trapFields {
		l[i] = f.Trap
	}
	return l
}

// Set gives the trap of this name its odds, 0 to 1.
func (t *Traps) Set(name string, odds Odds) error {
	if !(odds >= 0 && odds <= 1) {
		return fmt.Errorf("trap %s: odds of %v are not between 0 and 1", name, float64(odds))
	}
	for _, f := range trapFields {
		if strings.EqualFold(f.Name, name) {
			*f.at(t) = odds
			return nil
		}
	}
	return fmt.Errorf("no trap is called %q; 'holdfast sim --help' lists them", name)
}

// Get is the odds of the trap of this name, 0 for an unknown one.
func (t *Traps) Get(name string) Odds {
	for _, f := range trapFields {
		if strings.EqualFold(f.Name, name) {
			return *f.at(t)
		}
	}
	return 0
}

// Traps are the traps as they are set now.
func (m *Module) Traps() (t Traps) {
	_ = m.do(func() { t = m.traps })
	return t
}

// snaps throws the dice for one trap. Odds of 0 and 1 leave the dice alone, so
// that adding a certain trap does not change what a seed does.
func (m *Module) snaps(o Odds) bool {
	switch {
	case o <= 0:
		return false
	case o >= 1:
		return true
	}
	return m.rng.Float64() < float64(o)
}

// noise replaces b by as many random bytes.
func (m *Module) noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(m.rng.UintN(256))
	}
	return b
}

// strayURC is a true and harmless announcement, for the traps that put one
// where it is not expected.
func (m *Module) strayURC() string {
	l := []string{"+CGEV: EPS PDN ACT 1", "^MODE: 17,17"}
	if m.radio.stat == registeredHome {
		l = append(l, m.ceregURC())
	}
	return l[m.rng.IntN(len(l))]
}
