package modem

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// A socketTranscript is what a module says of one of its sockets: dialling, one write of
// "hello", and what comes down.
type socketTranscript struct {
	name string
	// answers are as in a transcript, one after the other; the last one stays.
	answers map[string][]string
	send    string // in place of "hello"
	says    string

	dial  string   // words of the error of dialling
	got   string   // what can be read
	ends  string   // words of the error of reading after that; "": it lives
	heard []string // commands, or beginnings of them, that must have been given
}

func playSocketTranscripts(t *testing.T, answers map[string][]string, all []socketTranscript) {
	for _, c := range all {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for i, way := range pieces {
				f := registered(t)
				for _, table := range []map[string][]string{answers, c.answers} {
					for beginning, texts := range table {
						f.tellInTurn(beginning, texts, announcements[i])
					}
				}
				f.wrap = func(host net.Conn) io.ReadWriteCloser { return &pieceLine{Conn: host, cut: way.cut} }
				withModem(t, f, Options{Mode: "socket"}, func(t *testing.T, m *Modem) {
					if err := c.play(f, m); err != nil {
						t.Errorf("%s, with %q between the lines: %v", way.name, announcements[i], err)
					}
				})
			}
		})
	}
}

func (c *socketTranscript) play(f *fake, m *Modem) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	conn, err := m.DialContext(ctx, "tcp", "192.0.2.1:1883")
	if c.dial != "" {
		if err == nil {
			conn.Close()
		}
		return expectWords("dialling", err, c.dial)
	}
	if err != nil {
		return err
	}
	defer conn.Close()
	send := c.send
	if send == "" {
		send = "hello"
	}
	if _, err := conn.Write([]byte(send)); err != nil {
		return err
	}
	time.Sleep(5 * time.Second)
	if c.says != "" {
		f.say(c.says)
	}
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	got, err := io.ReadAll(conn)
	switch {
	case err == nil:
		err = io.EOF
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = nil
	}
	if string(got) != c.got {
		return fmt.Errorf("%q came down, want %q", got, c.got)
	}
	for _, command := range c.heard {
		if len(f.heard(command)) == 0 {
			return fmt.Errorf("%q was not given", command)
		}
	}
	return expectWords("reading", err, c.ends)
}

// manyBytes is everyByte without what stands for something in an answer.
var manyBytes = strings.NewReplacer("#", "", "\x01", "").Replace(everyByte)

func TestTranscriptsOfEigencommSockets(t *testing.T) {
	playSocketTranscripts(t, map[string][]string{
		"AT+ECSOCR=?":      {"¦\r\n+ECSOCR: (STREAM,DGRAM),(6,17)\r\n¦" + ok},
		"AT+ECSONMI":       {"¦" + ok},
		"AT+ECSOCR=STREAM": {"¦\r\n0\r\n¦" + ok + "¦"},
		"AT+ECSOCO":        {"¦" + ok + "¦\r\n+ECSOCO: 0\r\n¦"},
		"AT+ECSOSD":        {"¦\r\n0,#\r\n¦" + ok + "¦\r\n+ECSOSTR: 0,1,1\r\n¦"},
		"AT+ECSORF":        {"¦" + ok},
		"AT+ECSOCL":        {"¦" + ok},
	}, []socketTranscript{
		{name: "plain", heard: []string{"AT+ECSOSD=0,5,68656C6C6F,0,1", `AT+ECSOCO=0,"192.0.2.1",1883`}},
		{name: "bytes are announced", says: "\r\n+ECSONMI: 0,5\r\n",
			answers: map[string][]string{"AT+ECSORF": {"¦\r\n0,\"192.0.2.1\",1883,5,\"4F4B0D0A00\",0\r\n¦" + ok, ok}}, got: "OK\r\n\x00"},
		{name: "bytes are announced, with a name", says: "\r\n+ECSONMI:0,2\r\n",
			answers: map[string][]string{"AT+ECSORF": {"¦\r\n+ECSORF: 0,\"192.0.2.1\",1883,2,\"6f6b\",0\r\n¦" + ok, ok}}, got: "ok"},
		{name: "more bytes than one answer has", says: "\r\n+ECSONMI: 0,4\r\n",
			answers: map[string][]string{"AT+ECSORF": {
				"¦\r\n0,\"192.0.2.1\",1883,2,\"4142\",2\r\n¦" + ok, "\r\n0,\"192.0.2.1\",1883,2,\"4344\",0\r\n" + ok, ok}}, got: "ABCD"},
		{name: "bytes are pushed", says: "\r\n+ECSONMI: 0,2,\"4142\"\r\n\r\n+ECSONMI: 0,1,\"43\"\r\n", got: "ABC"},
		{name: "bytes are pushed in the reply to a send", answers: map[string][]string{
			"AT+ECSOSD": {"\r\n+ECSONMI: 0,2,\"4142\"\r\n¦\r\n0,5\r\n¦\r\n+ECSONMI: 0,1,\"43\"\r\n" + ok + "\r\n+ECSOSTR: 0,1,1\r\n"}}, got: "ABC"},
		{name: "pushed bytes are missing", says: "\r\n+ECSONMI: 0,3,\"4142\"\r\n", ends: "is lost"},
		{name: "bytes of another socket", says: "\r\n+ECSONMI: 5,2,\"4142\"\r\n\r\n+ECSOCLI: 5,0\r\n"},
		{name: "the acknowledgement before the OK", answers: map[string][]string{"AT+ECSOSD": {"¦\r\n+ECSOSTR: 0,1,1\r\n¦\r\n0,5\r\n¦" + ok}}},
		{name: "a send that failed", answers: map[string][]string{"AT+ECSOSD": {"\r\n0,5\r\n" + ok + "¦\r\n+ECSOSTR: 0,1,0\r\n"}}, ends: "could not send"},
		{name: "a send of which a part is taken", answers: map[string][]string{"AT+ECSOSD": {"\r\n0,2\r\n" + ok, "¦\r\n0,3\r\n¦" + ok}},
			heard: []string{"AT+ECSOSD=0,5,68656C6C6F,0,1", "AT+ECSOSD=0,3,6C6C6F,0,2"}},
		{name: "no room for a send at first", answers: map[string][]string{"AT+ECSOSD": {"¦\r\n+SOCKET ERROR: 3\r\n", "\r\n0,5\r\n" + ok}},
			heard: []string{"AT+ECSOSD=0,5,68656C6C6F,0,2"}},
		{name: "the far side closes", says: "\r\n+ECSOCLI: 0,0\r\n", ends: "EOF"},
		{name: "the far side closes behind its last bytes", says: "\r\n+ECSONMI: 0,2\r\n\r\n+ECSOCLI: 0,0\r\n",
			answers: map[string][]string{"AT+ECSORF": {"¦\r\n0,\"192.0.2.1\",1883,2,\"4142\",0\r\n¦" + ok, ok}}, got: "AB", ends: "EOF"},
		{name: "bytes that cannot be read", says: "\r\n+ECSONMI: 0,2\r\n",
			answers: map[string][]string{"AT+ECSORF": {"\r\n0,\"192.0.2.1\",1883,2,\"414\",0\r\n" + ok}}, ends: "cannot be read"},
		{name: "no socket is left", answers: map[string][]string{"AT+ECSOCR=STREAM": {"¦\r\n+ECSOC ERROR: 8\r\n"}}, dial: "makes no socket"},
		{name: "a number that is none", answers: map[string][]string{"AT+ECSOCR=STREAM": {"¦" + ok}}, dial: "no number for a socket"},
		{name: "closed at once", answers: map[string][]string{"AT+ECSOCO": {ok + "¦\r\n+ECSOCLI: 0,3\r\n"}}, dial: "could not reach 192.0.2.1:1883"},
		{name: "not connected", answers: map[string][]string{"AT+ECSOCO": {"¦\r\n+SOCKET ERROR: 4\r\n"}}, dial: "could not reach 192.0.2.1:1883"},
		{name: "no result of connecting", answers: map[string][]string{"AT+ECSOCO": {ok + "¦"}}, dial: "the module"},
		{name: "a restart", says: "\r\nRDY\r\n", ends: "is lost"},
	})
}

func TestTranscriptsOfQuectelSockets(t *testing.T) {
	playSocketTranscripts(t, map[string][]string{
		"AT+ECMTCFG=?": {"\r\nERROR\r\n"},
		"AT+QIOPEN=?":  {"¦\r\n+QIOPEN: (1-15),(0-11),\"TCP/UDP\"\r\n¦" + ok},
		"AT+QIACT?":    {"¦\r\n+QIACT: 1,1,1,\"10.1.2.3\"\r\n¦" + ok},
		"AT+QICLOSE":   {"¦\r\nERROR\r\n", "¦" + ok},
		"AT+QIOPEN=1":  {"¦" + ok + "¦\r\n+QIOPEN: 0,0\r\n¦"},
		"AT+QISEND":    {"¦\r\n> \x01¦\r\nSEND OK\r\n¦"},
		"AT+QIRD":      {"¦\r\n+QIRD: 0\r\n¦" + ok},
	}, []socketTranscript{
		{name: "plain", heard: []string{"AT+QISEND=0,5", "> hello", `AT+QIOPEN=1,0,"TCP","192.0.2.1",1883`}},
		{name: "every byte up", send: everyByte, heard: []string{"> " + everyByte}},
		{name: "every byte down", says: "\r\n+QIURC: \"recv\",0\r\n",
			answers: map[string][]string{"AT+QIRD": {"¦\r\n+QIRD: " + length(manyBytes) + "\r\n" + manyBytes + "\r\n¦" + ok, "\r\n+QIRD: 0\r\n" + ok}}, got: manyBytes},
		{name: "more bytes than one answer has", says: "\r\n+QIURC: \"recv\",0\r\n",
			answers: map[string][]string{"AT+QIRD": {"\r\n+QIRD: 2\r\nAB\r\n¦" + ok, "\r\n+QIRD:2\r\nCD\r\n" + ok, "\r\n+QIRD: 0\r\n" + ok}}, got: "ABCD"},
		{name: "announced in the reply to a send", answers: map[string][]string{
			"AT+QISEND": {"\r\n+QIURC: \"recv\",0\r\n¦\r\n> \x01\r\nSEND OK\r\n"}, "AT+QIRD": {"\r\n+QIRD: 2\r\nAB\r\n" + ok, "\r\n+QIRD: 0\r\n" + ok}}, got: "AB"},
		{name: "a prompt without line ends", answers: map[string][]string{"AT+QISEND": {">\x01\r\nSEND OK\r\n"}}, heard: []string{"> hello"}},
		{name: "no room for a send at first", answers: map[string][]string{"AT+QISEND": {"\r\n> \x01¦\r\nSEND FAIL\r\n", "\r\n> \x01\r\nSEND OK\r\n"}}, heard: []string{"> hello"}},
		{name: "OK, and a result", answers: map[string][]string{"AT+QISEND": {"\r\n> \x01" + ok + "¦\r\n+QISEND: 0,0,5\r\n"}}},
		{name: "OK, and a failure", answers: map[string][]string{"AT+QISEND": {"\r\n> \x01" + ok + "¦\r\n+QISEND: 0,1\r\n"}}, ends: "could not send"},
		{name: "the far side closes", says: "\r\n+QIURC: \"closed\",0\r\n", ends: "EOF"},
		{name: "the far side closes behind its last bytes", says: "\r\n+QIURC: \"recv\",0\r\n\r\n+QIURC: \"closed\",0\r\n",
			answers: map[string][]string{"AT+QIRD": {"\r\n+QIRD: 2\r\nAB\r\n¦" + ok, "\r\n+QIRD: 0\r\n" + ok}}, got: "AB", ends: "EOF"},
		{name: "another socket's end is not ours", says: "\r\n+QIURC: \"closed\",3\r\n"},
		{name: "the data connection is closed", says: "\r\n+QIURC: \"pdpdeact\",1\r\n", ends: "the network closed the data connection"},
		{name: "the data connection is opened first", answers: map[string][]string{"AT+QIACT?": {"¦" + ok}}, heard: []string{"AT+QIACT=1"}},
		{name: "the far side refuses", answers: map[string][]string{"AT+QIOPEN=1": {ok + "¦\r\n+QIOPEN: 0,566\r\n"}}, dial: "the far side refused the connection (566)"},
		{name: "no data connection", answers: map[string][]string{"AT+QIOPEN=1": {ok + "¦\r\n+QIOPEN: 0,561\r\n"}}, dial: "could not be opened (561)"},
		{name: "an opening that is rejected", answers: map[string][]string{"AT+QIOPEN=1": {"¦\r\nERROR\r\n"}}, dial: "could not reach 192.0.2.1:1883"},
		{name: "an opening that says nothing more", answers: map[string][]string{"AT+QIOPEN=1": {ok + "¦"}}, dial: "the module"},
		{name: "a restart", says: "^boot.rom'v\x01\r\n\r\nRDY\r\n", ends: "is lost"},
	})
}

// Quectel's firmware keeps a data connection that the network has closed until the host
// has closed it too.
func TestADataConnectionThatTheNetworkClosedIsClosedBeforeItIsOpened(t *testing.T) {
	t.Parallel()
	f := registered(t)
	f.on("AT+QIOPEN=?", "\r\n+QIOPEN: (1-15)\r\n"+ok)
	f.on("AT+QIACT?", ok)
	f.onFunc("AT+QIOPEN=1", func(cmd string) string { return ok + "\r\n+QIOPEN: " + field(cmd, 1) + ",0\r\n" })
	f.on("AT+QICLOSE", "\r\nERROR\r\n")
	withModem(t, f, Options{Mode: "socket"}, func(t *testing.T, m *Modem) {
		dial := func() net.Conn {
			t.Helper()
			conn, err := m.DialContext(t.Context(), "tcp", "192.0.2.1:1883")
			if err != nil {
				t.Fatal(err)
			}
			return conn
		}
		first := dial()
		f.say("\r\n+QIURC: \"pdpdeact\",1\r\n")
		first.Close()
		f.forget()
		second := dial()
		got := f.heard("AT+QI")
		if len(got) < 3 || got[0] != "AT+QIDEACT=1" || got[1] != "AT+QIACT?" || got[2] != "AT+QIACT=1" {
			t.Errorf("the second connection is made with %q", got)
		}
		second.Close()
		f.forget()
		dial().Close()
		if got := f.heard("AT+QIDEACT"); len(got) > 0 {
			t.Error("the third one closes it again")
		}
	})
}
