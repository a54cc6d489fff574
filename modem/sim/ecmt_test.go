package sim

import (
	"strings"
	"testing"
	"time"

	"holdfast/edge/packet"
)

func TestConfigurationReachesTheCONNECTPacket(t *testing.T) {
	b := newBroker(t)
	h := power(t, Options{}).setUp()
	h.ok(`AT+ECMTCFG="keepalive",0,60`, `AT+ECMTCFG="session",0,1`, `AT+ECMTCFG="version",0,3`,
		`AT+ECMTCFG="will",0,1,1,1,"w/t","gone"`, b.open())
	p := b.accept()
	h.urc("+ECMTOPEN: 0,0")
	h.answers("AT+ECMTCONN?", "+ECMTCONN:0,1")
	h.ok(`AT+ECMTCONN=0,"gw","user","secret"`)
	c := p.connect(0)
	h.urc("+ECMTCONN: 0,0,0")
	if c.Version != packet.V31 || !c.CleanStart || c.KeepAlive != 60 || c.ClientID != "gw" ||
		c.Username != "user" || string(c.Password) != "secret" ||
		c.Will == nil || c.Will.Topic != "w/t" || string(c.Will.Payload) != "gone" || c.Will.QoS != 1 || !c.Will.Retain {
		t.Fatalf("got %+v", c)
	}
	h.ok("AT+ECMTDISC=0")
	p.receive(packet.DISCONNECT)
	p.gone()
	h.urc("+ECMTDISC: 0,0")
	h.answers("AT+ECMTCONN?", "+ECMTCONN:0,4")
	h.ok("AT+ECMTOPEN?")
	h.answers(`AT+ECMTCFG="keepalive",0`, `+ECMTCFG: "keepalive",120`)
	h.answers(`AT+ECMTCFG="session",0`, `+ECMTCFG: "session",0`)
}

func TestALoginIsKeptOnlyIfAllThreeStringsAreGiven(t *testing.T) {
	b := newBroker(t)
	h := power(t, Options{}).setUp()
	for cmd, want := range map[string]string{
		`AT+ECMTCONN=0,"gw"`:         defaultClientID,
		`AT+ECMTCONN=0,"gw","u"`:     defaultClientID,
		`AT+ECMTCONN=0,"gw","u","p"`: "gw",
		`AT+ECMTCONN=0,"gw","",""`:   "gw",
	} {
		h.ok(b.open())
		p := b.accept()
		h.urc("+ECMTOPEN: 0,0")
		h.ok(cmd)
		c := p.connect(0)
		if c.ClientID != want || c.HasUsername && want != "gw" {
			t.Fatalf("%s: %+v", cmd, c)
		}
		h.urc("+ECMTCONN: 0,0,0")
		h.ok("AT+ECMTCLOSE=0")
		p.receive(packet.DISCONNECT)
		h.urc("+ECMTCLOSE: 0,0")
	}
	if n := h.m.Stats().Mistakes[MistakeCredentials]; n != 2 {
		t.Fatalf("%d mistakes", n)
	}
}

func TestWhateverIsWrongIsError3(t *testing.T) {
	b := newBroker(t)
	h := power(t, Options{}).setUp()
	long := func(n int) string { return strings.Repeat("x", n) }
	h.refused(
		`AT+ECMTCFG="keepalive",120`, `AT+ECMTCFG="keepalive",0,3601`, `AT+ECMTCFG="nonsense",0,1`,
		`AT+ECMTCFG="session",0,2`, `AT+ECMTCFG="version",0,5`, `AT+ECMTCFG="version",1,4`,
		`AT+ECMTCFG="will",0,1,3,0,"t","m"`, `AT+ECMTCFG="will",0,1,1,0,"`+long(256)+`","m"`,
		`AT+ECMTCFG="timeout",0,61`, `AT+ECMTCFG="ssl","ca"`, `AT+ECMTCFG?`,
		`AT+ECMTOPEN=1,"h",1883`, `AT+ECMTOPEN=0,"h",0`, `AT+ECMTOPEN=0,h,1883`, `AT+ECMTOPEN=0,"h",65536`,
		`AT+ECMTOPEN=0,"`+long(128)+`",1883`, `AT+ECMTOPEN=0,"h,1883`,
		`AT+ECMTCONN=0,"a","b","c"`, `AT+ECMTDISC=0`, `AT+ECMTCLOSE=0`,
		`AT+ECMTSUB=0,1,"t",1`, `AT+ECMTUNS=0,1,"t"`, `AT+ECMTPUB=0,1,1,0,"t","x"`, `AT+ECMTPUB=0,1,1,0,"t"`,
	)
	h.ok(b.open())
	b.accept()
	h.urc("+ECMTOPEN: 0,0")
	h.refused(`AT+ECMTPUB=0,1,1,0,"t","x"`, `AT+ECMTCONN=0,"`+long(49)+`","b","c"`, `AT+ECMTCONN=0,"a","b","`+long(129)+`"`)
	h.ok("AT+ECMTCLOSE=0")
	h.urc("+ECMTCLOSE: 0,0")
	h.online(b)
	h.refused(
		`AT+ECMTPUB=0,65536,1,0,"t","x"`, `AT+ECMTPUB=0,1,3,0,"t","x"`, `AT+ECMTPUB=0,1,1,2,"t","x"`,
		`AT+ECMTPUB=0,1,1,41,"t","x"`, `AT+ECMTPUB=0,1,1,0,t,"x"`, `AT+ECMTPUB=0,1,1,0,"`+long(256)+`","x"`,
		`AT+ECMTPUB=0,1,1,0,"t",`, `AT+ECMTPUB=0,1,1,0,"t","`+long(1025)+`"`,
		`AT+ECMTSUB=0,0,"t",1`, `AT+ECMTSUB=0,1,"t",3`, `AT+ECMTSUB=0,1,"`+long(256)+`",1`, `AT+ECMTSUB=0,1,"t"`,
	)
	s := h.m.Stats()
	if s.Mistakes[MistakeTooEarly] == 0 || s.Mistakes[MistakeNoContext] != 2 || s.Mistakes[MistakeLimit] == 0 {
		t.Fatalf("%v", s.Mistakes)
	}
}

func TestOPENAndCONNAreAnsweredWithOKAndNothingElseWhenNotIdle(t *testing.T) {
	b := newBroker(t)
	h := power(t, Options{}).setUp()
	h.ok(b.open())
	p := b.accept()
	h.urc("+ECMTOPEN: 0,0")
	h.ok(b.open()) // opened: no URC
	h.quiet()
	h.ok(`AT+ECMTCONN=0,"gw","user","secret"`)
	p.connect(0)
	h.urc("+ECMTCONN: 0,0,0")
	h.ok(b.open(), `AT+ECMTCONN=0,"gw","user","secret"`)
	h.quiet()
	p.send(0xd0, 0) // a stray PINGRESP hurts nobody
	h.ok(`AT+ECMTPUB=0,1,0,0,"t","x"`)
	p.publish(0)
	h.urc("+ECMTPUB: 0,1,0")
}

func TestAFailedOPENReportsMinusOneAndForgetsTheConfiguration(t *testing.T) {
	b := newBroker(t)
	h := power(t, Options{}).setUp()
	h.ok(`AT+ECMTCFG="keepalive",0,60`)
	b.l.Close()
	h.ok(b.open())
	h.urc("+ECMTOPEN: 0,-1")
	h.answers(`AT+ECMTCFG="keepalive",0`, `+ECMTCFG: "keepalive",120`)
	h.answers("AT+ECMTCONN?", "+ECMTCONN:0,4")
}

func TestARefusalHasItsCodeInTheThirdFieldAndIsTriedAgainThreeTimes(t *testing.T) {
	b := newBroker(t)
	h := power(t, Options{ReconnectAfter: time.Millisecond}).setUp()
	h.ok(b.open())
	p := b.accept()
	h.urc("+ECMTOPEN: 0,0")
	h.ok(`AT+ECMTCONN=0,"gw","user","wrong"`)
	for i := 0; ; i++ {
		p.connect(5)
		h.urc("+ECMTCONN: 0,0,5")
		if i == maxRefusals {
			break
		}
		h.answers("AT+ECMTCONN?", "+ECMTCONN:0,3") // it has not looked
		p.c.Close()
		h.urc("+ECMTSTAT: 0,1")
		p = b.accept()
	}
	p.gone()
	h.answers("AT+ECMTCONN?", "+ECMTCONN:0,1")
	h.ok(`AT+ECMTCONN=0,"gw","user","right"`) // nothing is there to send it on
	h.urc("+ECMTCONN: 0,2,2")
	h.ok("AT+ECMTCLOSE=0")
	h.until("+ECMTCLOSE: 0,")
	h.until("\r\n")
	h.online(b)
}

func TestRefusePlaysABrokerThatRefuses(t *testing.T) {
	b := newBroker(t)
	h := power(t, Options{ReconnectAfter: time.Hour}).setUp()
	h.m.Refuse(4)
	h.ok(b.open())
	p := b.accept()
	h.urc("+ECMTOPEN: 0,0")
	h.ok(`AT+ECMTCONN=0,"gw","user","secret"`)
	h.urc("+ECMTCONN: 0,0,4")
	h.urc("+ECMTSTAT: 0,1")
	p.gone()
}

func TestAnAnswerThatIsNoCONNACKIsCode6(t *testing.T) {
	b := newBroker(t)
	h := power(t, Options{}).setUp()
	h.ok(b.open())
	p := b.accept()
	h.urc("+ECMTOPEN: 0,0")
	h.ok(`AT+ECMTCONN=0,"gw","user","secret"`)
	p.receive(packet.CONNECT)
	p.send(0x20, 1, 0)
	h.urc("+ECMTCONN: 0,0,6")
}

func TestASubscriptionIsReportedWithTheNumberOfCodesEvenIfItWasRefused(t *testing.T) {
	b := newBroker(t)
	h := power(t, Options{}).setUp()
	p := h.online(b)
	h.ok(`AT+ECMTSUB=0,7,"cmd/#",2`)
	var s packet.Subscribe
	if err := s.Decode(p.receive(packet.SUBSCRIBE).body, packet.V311); err != nil {
		t.Fatal(err)
	}
	if s.PacketID != 7 || s.Filters[0].Filter != "cmd/#" || s.Filters[0].QoS != 2 {
		t.Fatalf("%+v", s)
	}
	p.send(0x90, 3, 0, 7, 0x80)
	h.urc("+ECMTSUB: 0,7,0,1")
	h.ok(`AT+ECMTUNS=0,8,"cmd/#"`)
	p.receive(packet.UNSUBSCRIBE)
	p.send(0xb0, 2, 0, 8)
	h.urc("+ECMTUNS: 0,8,0")
}

func TestADownlinkMessageIsAcknowledgedByTheModuleAndComesWithoutLengthOrQuotes(t *testing.T) {
	b := newBroker(t)
	h := power(t, Options{}).setUp()
	p := h.online(b)
	down := func(id int, payload string) {
		t.Helper()
		pub := packet.Publish{QoS: 1, Topic: []byte("c/1"), PacketID: uint16(id), Payload: []byte(payload)}
		if id == 0 {
			pub.QoS = 0
		}
		raw, err := pub.Append(nil, packet.V311)
		if err != nil {
			t.Fatal(err)
		}
		p.send(raw...)
	}
	down(0, "on")
	h.urc(`+ECMTRECV: 0,0,"c/1",on`)
	down(300, "{\r\n\"a\":1,\r\nOK\r\n}")
	h.urc("+ECMTRECV: 0,300,\"c/1\",{\r\n\"a\":1,\r\nOK\r\n}")
	if id, _ := (&frame{body: p.receive(packet.PUBACK).body}).id(); id != 300 {
		t.Fatalf("PUBACK %d", id)
	}
	down(2, "\x00\x00be\x00hind")
	h.urc(`+ECMTRECV: 0,2,"c/1",be`)
	h.m.SetTraps(Traps{QuotedRecv: 1})
	down(3, `say "x"`)
	h.urc(`+ECMTRECV: 0,3,"c/1","say "x""`)
	if n := h.m.Stats().Received; n != 4 {
		t.Fatalf("%d received", n)
	}
}

func TestADownlinkMessageBeyondTheBufferIsLostAndItsRestIsReadAsPackets(t *testing.T) {
	b := newBroker(t)
	h := power(t, Options{}).setUp()
	p := h.online(b)
	// A topic of 1 byte; the payload is PINGRESPs, which are harmless.
	payload := []byte(strings.Repeat("\xd0\x00", 600))
	raw, _ := (&packet.Publish{Topic: []byte("t"), Payload: payload}).Append(nil, packet.V311)
	p.send(raw...)
	// The firmware takes 00 01 't' for the start of a packet, and 't' for its
	// remaining length of 1... and so on; whatever it makes of it, it lives.
	h.quiet()
	if n := h.m.Stats().Received; n != 0 {
		t.Fatalf("%d received", n)
	}
}
