package sim

import (
	"fmt"
	"strings"
	"testing"

	"holdfast/edge/packet"
)

func TestAMessageGoesUpAndItsPacketIdentifierIsTheHosts(t *testing.T) {
	b := newBroker(t)
	h := power(t, Options{}).setUp()
	p := h.online(b)
	h.answers("AT+ECMTCONN?", "+ECMTCONN:0,3")
	h.answers("AT+ECMTOPEN?", `+ECMTOPEN:0,"127.0.0.1",`+b.port())
	h.ok(`AT+ECMTPUB=0,4711,1,1,"a/b","{"t":21.5}"`)
	m := p.publish(1)
	if m.PacketID != 4711 || string(m.Topic) != "a/b" || string(m.Payload) != `{"t":21.5}` || !m.Retain {
		t.Fatalf("got %+v", m)
	}
	h.quiet() // nothing before the broker's answer
	p.puback(4711)
	h.urc("+ECMTPUB: 0,4711,0")

	h.ok(`AT+ECMTPUB=0,9,0,10,"a",hello, world; "x`)
	if m := p.publish(0); string(m.Payload) != `hello, world; "x` || m.Retain {
		t.Fatalf("got %+v", m)
	}
	h.urc("+ECMTPUB: 0,9,0")

	h.ok(`AT+ECMTPUB=0,10,2,0,"a",""`)
	if m := p.publish(2); len(m.Payload) != 0 {
		t.Fatalf("got %+v", m)
	}
	p.send(0x50, 2, 0, 10)
	p.receive(packet.PUBREL)
	p.send(0x70, 2, 0, 10)
	h.urc("+ECMTPUB: 0,10,0")
	if s := h.m.Stats(); s.PublishQueued != 3 || s.PublishAcked != 3 || s.PublishSent != 3 || len(s.Mistakes) != 0 {
		t.Fatalf("%+v", s)
	}
}

func TestTopicAndPayloadMustFitTheBufferTogether(t *testing.T) {
	b := newBroker(t)
	h := power(t, Options{}).setUp()
	p := h.online(b)
	topic := strings.Repeat("t", 200)
	h.ok(fmt.Sprintf(`AT+ECMTPUB=0,1,1,0,"%s","%s"`, topic, strings.Repeat("x", 1000)))
	h.urc("+ECMTPUB: 0,1,2")
	// 1 + 2 of header, 2 of length, 200, 2 of identifier: 949 are left.
	h.ok(fmt.Sprintf(`AT+ECMTPUB=0,2,1,0,"%s","%s"`, topic, strings.Repeat("x", 950)))
	h.urc("+ECMTPUB: 0,2,2")
	h.ok(fmt.Sprintf(`AT+ECMTPUB=0,3,1,0,"%s","%s"`, topic, strings.Repeat("x", 949)))
	if m := p.publish(1); len(m.Payload) != 949 {
		t.Fatalf("%d bytes", len(m.Payload))
	}
	h.ok(fmt.Sprintf(`AT+ECMTPUB=0,4,0,0,"t","%s"`, strings.Repeat("x", 1024)))
	if m := p.publish(0); len(m.Payload) != 1024 {
		t.Fatalf("%d bytes", len(m.Payload))
	}
}

func TestAnInlinePayloadEndsAtANUL(t *testing.T) {
	b := newBroker(t)
	h := power(t, Options{}).setUp()
	p := h.online(b)
	h.ok("AT+ECMTPUB=0,1,0,0,\"t\",\"be\x00hind\"")
	if m := p.publish(0); string(m.Payload) != "be" {
		t.Fatalf("%q", m.Payload)
	}
	if h.m.Stats().Mistakes[MistakeControl] != 1 {
		t.Fatal("a control byte was not noticed")
	}
}

func TestInDataModeThePromptHasNoLineEndAndCtrlZSends(t *testing.T) {
	b := newBroker(t)
	h := power(t, Options{}).setUp()
	p := h.online(b)
	h.write("AT+ECMTPUB=0,5,1,0,\"t\"\r")
	if got := h.until("\r\n> "); got != "" {
		t.Fatalf("before the prompt: %q", got)
	}
	if h.buf != "" {
		t.Fatalf("after the prompt: %q", h.buf)
	}
	h.write("line 1\r\nline\x1a 2\x00")
	h.write("end\x1a")
	h.until("\r\nOK\r\n")
	if m := p.publish(1); string(m.Payload) != "line 1\r\nline\x1a 2\x00end" {
		t.Fatalf("%q", m.Payload)
	}
	p.puback(5)
	h.urc("+ECMTPUB: 0,5,0")

	h.write("AT+ECMTPUB=0,6,1,0,\"t\"\r")
	h.until("\r\n> ")
	h.write("never\x1b")
	h.urc("OK")
	h.quiet()

	h.write("AT+ECMTPUB=0,7,1,0,\"t\"\r")
	h.until("\r\n> ")
	h.write(strings.Repeat("x", 1028) + "\x1a")
	h.urc("+CME ERROR: 3")
	if n := h.m.Stats().PublishQueued; n != 1 {
		t.Fatalf("%d publishes", n)
	}
}

func TestInDataModeATransferThatHappensToEndInCtrlZEndsThePayload(t *testing.T) {
	b := newBroker(t)
	h := power(t, Options{}).setUp()
	p := h.online(b)
	h.write("AT+ECMTPUB=0,5,0,0,\"t\"\r")
	h.until("\r\n> ")
	h.write("ab\x1a")
	h.until("\r\nOK\r\n") // here the host thinks that it is still writing data
	h.write("cd\x1a\r")
	if m := p.publish(0); string(m.Payload) != "ab" {
		t.Fatalf("%q", m.Payload)
	}
	h.urc("+ECMTPUB: 0,5,0")
	h.quiet()
	if h.m.Stats().Mistakes[MistakeNotAT] != 1 {
		t.Fatal("the rest of the payload was not taken for a line")
	}
}

func TestAPayloadBeforeThePromptIsAMistake(t *testing.T) {
	b := newBroker(t)
	h := power(t, Options{}).setUp()
	p := h.online(b)
	h.write("AT+ECMTPUB=0,5,0,0,\"t\"\rab\x1a")
	h.until("\r\nOK\r\n")
	p.publish(0)
	if h.m.Stats().Mistakes[MistakeEarlyPayload] != 1 {
		t.Fatalf("%v", h.m.Stats().Mistakes)
	}
}

func TestMessageIdentifier0GoesOutAsItIsAtQoS1(t *testing.T) {
	b := newBroker(t)
	h := power(t, Options{}).setUp()
	p := h.online(b)
	h.ok(`AT+ECMTPUB=0,0,1,0,"t","x"`)
	f := p.receive(packet.PUBLISH)
	if f.flags != 2 || string(f.body) != "\x00\x01t\x00\x00x" {
		t.Fatalf("%+v", f)
	}
	h.ok(`AT+ECMTPUB=0,1,1,0,"t","x"`, `AT+ECMTPUB=0,1,1,0,"t","x"`)
	s := h.m.Stats()
	if s.Mistakes[MistakeNoID] != 1 || s.Mistakes[MistakeReusedID] != 1 {
		t.Fatalf("%v", s.Mistakes)
	}
}

func TestACloudModeWantsJSON(t *testing.T) {
	b := newBroker(t)
	h := power(t, Options{}).setUp()
	h.ok(`AT+ECMTCFG="cloud",0,1`)
	p := h.online(b)
	h.refused(`AT+ECMTPUB=0,1,0,0,"t","21.5 C"`)
	h.ok(`AT+ECMTPUB=0,1,0,0,"t","{"t":1}"`)
	if m := p.publish(0); string(m.Payload) != "\x03\x00\x07{\"t\":1}" {
		t.Fatalf("%q", m.Payload)
	}
}
