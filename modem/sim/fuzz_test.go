package sim

import (
	"context"
	"net"
	"testing"
)

// FuzzCommand feeds the interpreter without a terminal, in transfers of the
// size that the first byte says: nothing on the line may stop the firmware.
func FuzzCommand(f *testing.F) {
	for _, s := range []string{
		"AT\r", "ATE0\rATE1V1&W\r", "AT+CMEE=1;+CEREG=2;+CEREG?\r", "AT+CSQ\r\nAT+CPIN=\"1234\"\r",
		"AT+ECMTCFG=\"will\",0,1,1,0,\"t\",\"m\"\rAT+ECMTCFG=\"will\",0\rAT+ECMTCFG=?\r",
		"AT+ECMTCFG=\"ssl\",\"ca\",\"AAAA\",\"h\"\rAT+ECMTOPEN=0,\"h\",1883\rAT+ECMTOPEN?\r",
		"AT+ECMTCONN=0,\"a\",\"b\",\"c\"\rAT+ECMTCONN?\rAT+ECMTSUB=0,1,\"t\",1\r",
		"AT+ECMTPUB=0,1,1,0,\"t\",\"{\"a\":1}\"\rAT+ECMTPUB=0,1,1,0,\"t\"\rabc\x1a\x1b",
		"AT+CFUN=0\rAT+CFUN=1,1\rAT+ECRST\r", "AT+CGDCONT=1,\"IP\",\"a\"\rAT+CGDCONT?\r", "AT+=\rAT+\rAT&\rATD*99#\r",
	} {
		f.Add(byte(7), []byte(s), true)
		f.Add(byte(255), []byte(s), false)
	}
	f.Fuzz(func(t *testing.T, size byte, input []byte, connected bool) {
		o := Options{
			PIN: "1234", Seed: 1,
			Traps: Traps{URCInReply: .5, URCBeforePrompt: .5, URCAfterPrompt: .5, EchoReturns: .1, LateOK: .1, Noise: .1, DocLimits: .5, HoldSlots: .5},
			Dial:  func(context.Context, string, string) (net.Conn, error) { return nil, net.ErrClosed },
		}
		m := unpowered(o)
		defer func() { m.cancel(); m.wg.Wait() }()
		if connected { // as far as the interpreter can see
			m.mq.state, m.radio.pdn = stateConnected, true
		}
		n := int(size) + 1
		for len(input) > 0 {
			n = min(n, len(input))
			m.receive(chunk{input[:n], m.uart.sent.Load()})
			input = input[n:]
			m.uart.take(txBuffer)
		}
	})
}

// unpowered is a module without a terminal and without its engine: the caller
// is the engine.
func unpowered(o Options) *Module {
	o.fill()
	return assemble(o, &uart{wake: make(chan struct{}, 1)})
}
