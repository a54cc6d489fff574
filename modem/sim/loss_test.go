package sim

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"holdfast/edge/packet"
)

func TestAfterALossTheFirmwareReconnectsWithTheStoredLoginAndWithoutSubscriptions(t *testing.T) {
	b := newBroker(t)
	h := power(t, Options{ReconnectAfter: time.Millisecond}).setUp()
	p := h.online(b)
	h.ok(`AT+ECMTSUB=0,1,"t",0`)
	p.receive(packet.SUBSCRIBE)
	p.send(0x90, 3, 0, 1, 0)
	h.urc("+ECMTSUB: 0,1,0,1")
	h.ok(`AT+ECMTPUB=0,2,1,0,"t","x"`)
	p.publish(1)
	p.c.Close()
	h.urc("+ECMTSTAT: 0,1")
	p = b.accept()
	if c := p.connect(0); c.ClientID != "gw" || string(c.Password) != "secret" {
		t.Fatalf("%+v", c)
	}
	h.urc("+ECMTCONN: 0,0,0")
	// The publish that was under way is neither repeated nor reported.
	h.ok(`AT+ECMTPUB=0,3,1,0,"t","y"`)
	if m := p.publish(1); m.PacketID != 3 {
		t.Fatalf("%+v", m)
	}
	p.puback(3)
	h.urc("+ECMTPUB: 0,3,0")
	if s := h.m.Stats(); s.Connects != 2 || s.Reconnects != 1 {
		t.Fatalf("%+v", s)
	}
}

func TestAFailedReconnectIsAWedgeUntilECRST(t *testing.T) {
	b := newBroker(t)
	h := power(t, Options{ReconnectAfter: time.Millisecond, BootTime: time.Millisecond}).setUp()
	p := h.online(b)
	b.l.Close()
	p.c.Close()
	h.urc("+ECMTSTAT: 0,1")
	var e *mqttContext
	eventually(t, "a wedge", func() bool {
		var s mqttState
		h.m.after0(func() { e = h.m.mq; s = e.state })
		return s == stateConnecting
	})
	h.ok(b.open(), `AT+ECMTCONN=0,"gw","user","secret"`)
	h.refused("AT+ECMTCLOSE=0", "AT+ECMTDISC=0", `AT+ECMTPUB=0,1,0,0,"t","x"`)
	h.answers("AT+ECMTCONN?", "+ECMTCONN:0,2")
	h.ok("AT+CFUN=0")
	h.urc("+CGEV: NW PDN DEACT 1")
	h.ok("AT+CFUN=1")
	h.until("+NITZ")
	h.until("\r\n")
	h.answers("AT+ECMTCONN?", "+ECMTCONN:0,2")
	h.ok("AT+ECRST")
	h.until("\r\nRDY\r\n")
	h.until("+NITZ")
	h.until("\r\n")
	h.setUp()
	h.online(newBroker(t))
}

func TestInAnOutageConnectionsFreezeAndGoOnAfterIt(t *testing.T) {
	b := newBroker(t)
	h := power(t, Options{}).setUp()
	p := h.online(b)
	h.m.SetLink(false)
	h.urc("+CGEV: NW PDN DEACT 1")
	h.ok(`AT+ECMTPUB=0,1,1,0,"t","x"`, `AT+ECMTPUB=0,2,0,0,"t","y"`)
	h.urc("+ECMTPUB: 0,2,0") // written to the socket, so the firmware says
	p.send(0x30, 5, 0, 1, 't', 'h', 'i')
	h.quiet()
	if s := h.m.Stats(); s.Up != int64(len(mustConnect(t))) || s.Received != 0 {
		t.Fatalf("%+v", s)
	}
	h.m.SetLink(true)
	p.publish(1)
	p.publish(0)
	p.puback(1)
	h.until(`+ECMTRECV: 0,0,"t",hi` + "\r\n")
	h.urc("+ECMTPUB: 0,1,0")
}

func mustConnect(t *testing.T) []byte {
	t.Helper()
	b, err := connectPacket(&mqttContext{cfg: defaultConfig(), clientID: "gw", user: "user", password: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBeforeAnOutageIsNoticedAnOPENHangsAndAfterThatItIsRefused(t *testing.T) {
	b := newBroker(t)
	h := power(t, Options{NoticeAfter: time.Hour, ConnectTimeout: 20 * time.Millisecond}).setUp()
	h.m.SetLink(false)
	h.ok(b.open())
	h.urc("+ECMTOPEN: 0,-1")
	h.m.SetLink(true)
	h.online(b)
}

func TestAnOutageMayBreakTheConnections(t *testing.T) {
	b := newBroker(t)
	h := power(t, Options{Traps: Traps{OutageBreaks: 1}, ReconnectAfter: time.Millisecond}).setUp()
	p := h.online(b)
	h.m.SetLink(false)
	h.urc("+CGEV: NW PDN DEACT 1")
	h.urc("+ECMTSTAT: 0,1")
	p.gone()
}

func TestDeadNATIsNoticedAfterFourLostPings(t *testing.T) {
	b := newBroker(t)
	h := power(t, Options{Traps: Traps{DeadNAT: 1}, KeepAliveUnit: time.Millisecond, ReconnectAfter: time.Millisecond}).setUp()
	h.ok(`AT+ECMTCFG="keepalive",0,10`)
	p := h.online(b)
	p.receive(packet.PINGREQ)
	p.send(0xd0, 0)
	h.m.SetLink(false)
	h.urc("+CGEV: NW PDN DEACT 1")
	h.m.SetLink(true)
	h.until("+NITZ")
	h.until("\r\n")
	h.urc("+ECMTSTAT: 0,1")
	p = b.accept()
	p.connect(0)
	h.urc("+ECMTCONN: 0,0,0")
}

func TestASeventhPublishIsAnsweredWithOKAndLostWithoutAWord(t *testing.T) {
	b := newBroker(t)
	h := power(t, Options{}).setUp()
	p := h.online(b)
	h.m.SetTraps(Traps{HoldSlots: 1})
	for id := 1; id <= 7; id++ {
		h.ok(fmt.Sprintf(`AT+ECMTPUB=0,%d,1,0,"t","x"`, id))
	}
	for id := 1; id <= 6; id++ {
		if m := p.publish(1); int(m.PacketID) != id {
			t.Fatalf("%+v", m)
		}
		p.puback(id)
		h.urc(fmt.Sprintf("+ECMTPUB: 0,%d,0", id))
	}
	h.quiet()
	s := h.m.Stats()
	if s.PublishLost != 1 || s.PublishQueued != 7 || s.PublishAcked != 6 || s.Mistakes[MistakeWindow] == 0 {
		t.Fatalf("%+v", s)
	}
}

func TestASeventhPublishIsSentIfAPlaceBecomesFreeWithinASecond(t *testing.T) {
	b := newBroker(t)
	h := power(t, Options{}).setUp()
	p := h.online(b)
	h.m.SetTraps(Traps{HoldSlots: 1})
	for id := 1; id <= 6; id++ {
		h.ok(fmt.Sprintf(`AT+ECMTPUB=0,%d,1,0,"t","x"`, id))
		p.publish(1)
	}
	h.write("AT+ECMTPUB=0,7,1,0,\"t\",\"x\"\r")
	eventually(t, "it waits", func() (w bool) {
		h.m.after0(func() { w = h.m.mq.waiter != nil })
		return w
	})
	p.puback(1)
	got := h.until("\r\nOK\r\n")
	if got+h.buf == "" || p.publish(1).PacketID != 7 {
		t.Fatalf("%q", got)
	}
}

func TestInAFrozenConnectionTheQueueFillsBehindTheSendBuffer(t *testing.T) {
	b := newBroker(t)
	h := power(t, Options{}).setUp()
	p := h.online(b)
	h.m.SetLink(false)
	h.urc("+CGEV: NW PDN DEACT 1")
	big := strings.Repeat("x", 1000)
	sent := 0
	for id := 1; h.m.Stats().PublishLost == 0; id++ {
		h.ok(fmt.Sprintf(`AT+ECMTPUB=0,%d,1,0,"t","%s"`, id, big))
		sent = id
	}
	// Five fit the send buffer, six the queue.
	if sent != sendBuffer/1009+queueDepth+1 {
		t.Fatalf("the %dth was lost", sent)
	}
	h.m.SetLink(true)
	for range sent - 1 {
		p.publish(1)
	}
}

func TestOPENEmptiesTheQueue(t *testing.T) {
	b := newBroker(t)
	h := power(t, Options{}).setUp()
	h.online(b)
	h.m.SetLink(false)
	h.urc("+CGEV: NW PDN DEACT 1")
	h.m.after0(func() { h.m.radio.pdn = true })
	for id := 1; id <= 9; id++ {
		h.ok(fmt.Sprintf(`AT+ECMTPUB=0,%d,1,0,"t","%s"`, id, strings.Repeat("x", 1000)))
	}
	h.ok(b.open())
	if n := h.m.Stats().PublishLost; n != 3 { // five in the buffer, one in hand
		t.Fatalf("%d lost", n)
	}
}
