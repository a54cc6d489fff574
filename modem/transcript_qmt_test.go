package modem

import (
	"strconv"
	"testing"

	"holdfast"
)

// everyByte is a payload that has all of them, and lines that end a publish or a
// connection in other places.
var everyByte = func() string {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	return "\r\nOK\r\n> \r\n+QMTSTAT: 0,1\r\n\r\n+CMQTTRXEND: 0\r\nRDY\r\n\",\"" + string(all)
}()

// What Quectel firmware says, as its manual and the logs of users have it.
func TestTranscriptsOfQuectelFirmware(t *testing.T) {
	playTranscripts(t, "qmt", map[string]string{
		"AT+QMTPUBEX=?": "\r\n+QMTPUBEX: (0-5),(0-65535),(0-2),(0,1),\"topic\",(1-4096)\r\n¦" + ok,
		"AT+QMTDISC":    "¦\r\nERROR\r\n",
		"AT+QMTCLOSE":   "¦\r\nERROR\r\n",
		"AT+QMTOPEN":    "¦" + ok + "¦\r\n+QMTOPEN: 0,0\r\n¦",
		"AT+QMTCONN=":   "¦" + ok + "¦\r\n+QMTCONN: 0,0,0\r\n¦",
		"AT+QMTCONN?":   "¦\r\n+QMTCONN: 0,3\r\n¦" + ok,
		"AT+QMTSUB":     "¦" + ok + "¦\r\n+QMTSUB: 0,#,0,1\r\n¦",
		"AT+QMTPUBEX=0": "¦\r\n> ¦\x01¦" + ok + "¦\r\n+QMTPUBEX: 0,#,0\r\n¦",
	}, []transcript{
		{name: "plain", heard: []string{"AT+QMTPUBEX=0,", "> 21.5"}},
		{name: "every byte up", publish: []holdfast.Message{{Topic: "t", Payload: []byte(everyByte), QoS: 1}}, heard: []string{"> " + everyByte}},
		{name: "several up", publish: []holdfast.Message{
			{Topic: "t", Payload: []byte("1"), QoS: 1}, {Topic: "t", Payload: []byte("2"), QoS: 0}, {Topic: "t", Payload: []byte("3"), QoS: 2},
			{Topic: "t", Payload: []byte("4"), QoS: 0}},
			heard: []string{`AT+QMTPUBEX=0,0,0,0,"t",1`}},
		{name: "a prompt without line ends", answers: map[string]string{"AT+QMTPUBEX=0": "¦> \x01" + ok + "\r\n+QMTPUBEX: 0,#,0\r\n"}},
		{name: "a prompt without the space", answers: map[string]string{"AT+QMTPUBEX=0": "\r\n>\x01" + ok + "\r\n+QMTPUBEX: 0,#,0\r\n"}},
		{name: "a prompt with a line end", answers: map[string]string{"AT+QMTPUBEX=0": "\r\n> \r\n\x01" + ok + "\r\n+QMTPUBEX: 0,#,0\r\n"}},
		{name: "the result under its old name", answers: map[string]string{"AT+QMTPUBEX=0": "\r\n> \x01" + ok + "¦\r\n+QMTPUB:0,#,0\r\n"}},
		{name: "the result before the OK", answers: map[string]string{"AT+QMTPUBEX=0": "\r\n> \x01¦\r\n+QMTPUBEX: 0,#,0\r\n¦" + ok}},
		{name: "sent again, then acknowledged", answers: map[string]string{"AT+QMTPUBEX=0": "\r\n> \x01" + ok + "\r\n+QMTPUBEX: 0,#,1,1\r\n¦\r\n+QMTPUBEX: 0,#,1,2\r\n¦\r\n+QMTPUBEX: 0,#,0\r\n"}},
		{name: "not acknowledged", answers: map[string]string{"AT+QMTPUBEX=0": "\r\n> \x01" + ok + "¦\r\n+QMTPUBEX: 0,#,2\r\n"},
			err: "unknown", ends: "result 2"},
		{name: "a module that is not connected any more", answers: map[string]string{
			"AT+QMTPUBEX=0": "¦\r\n+CME ERROR: 3\r\n", "AT+QMTCONN?": "\r\n+QMTCONN: 0,1\r\n¦" + ok}, err: "unknown", ends: "does not publish any more"},
		{name: "a message that it does not take", answers: map[string]string{"AT+QMTPUBEX=0": "¦\r\n+CME ERROR: 601\r\n"}, err: "rejects this message"},
		{name: "a command comes down in the reply to a publish", answers: map[string]string{
			"AT+QMTPUBEX=0": "\r\n+QMTRECV: 0,5,\"cmd/1\",4,\"\r\nOK\"\r\n¦\r\n> \x01\r\n+QMTRECV: 0,0,\"cmd/2\",2,\"> \"\r\n" + ok + "\r\n+QMTPUBEX: 0,#,0\r\n"},
			got: []string{"cmd/1 \r\nOK", "cmd/2 > "}},
		{name: "commands come down", says: "¦\r\n+QMTRECV: 0,0,\"a\",3,\"on\"\"\r\n¦\r\n+QMTRECV:0,1,\"b\",1,\"x\"\r\n¦\r\n+QMTRECV: 0,2,\"c,\",0,\"\"\r\n¦",
			got: []string{`a on"`, "b x", "c, "}},
		{name: "every byte down", says: "¦\r\n+QMTRECV: 0,7,\"cmd/all\"," + length(everyByte) + ",\"" + everyByte + "\"\r\n¦", got: []string{"cmd/all " + everyByte}},
		{name: "commands come down without their length", says: "¦\r\n+QMTRECV: 0,0,\"a\",\"on\"\r\n¦\r\n+QMTRECV: 0,3,\"b\",\"{\"x\":\"1,2\"}\"\r\n", got: []string{"a on", `b {"x":"1,2"}`}},
		{name: "a command that is not one", says: "\r\n+QMTRECV: 0,0\r\n¦\r\n+QMTRECV: 0,0,\"\",1,\"x\"\r\n¦\r\n+QMTRECV: 0,0,\"a\",1,\"x\"\r\n", lost: 2, got: []string{"a x"}},
		{name: "opening says its result first", answers: map[string]string{"AT+QMTOPEN": "\r\n+QMTOPEN: 0,0\r\n¦" + ok}},
		{name: "a login with two fields", answers: map[string]string{"AT+QMTCONN=": ok + "¦\r\n+QMTCONN: 0,0\r\n"}},
		{name: "a login without the space", answers: map[string]string{"AT+QMTCONN=": ok + "¦\r\n+QMTCONN:0,0,0\r\n"}},
		{name: "a login that is sent again", answers: map[string]string{"AT+QMTCONN=": ok + "\r\n+QMTCONN: 0,1\r\n¦\r\n+QMTCONN: 0,0,0\r\n"}},
		{name: "a login that fails and then does not", answers: map[string]string{"AT+QMTCONN=": ok + "\r\n+QMTCONN: 0,2\r\n¦\r\n+QMTCONN: 0,0,0\r\n"}},
		{name: "a login that fails", answers: map[string]string{"AT+QMTCONN=": ok + "¦\r\n+QMTCONN: 0,2\r\n"}, login: "could not send the login"},
		{name: "a refused login", answers: map[string]string{"AT+QMTCONN=": ok + "¦\r\n+QMTCONN: 0,0,5\r\n"}, login: "not authorized (5)"},
		{name: "a refused login that has failed as well", answers: map[string]string{"AT+QMTCONN=": ok + "¦\r\n+QMTCONN: 0,2,4\r\n"}, login: "bad user name or password (4)"},
		{name: "a refusal behind the loss of the connection", answers: map[string]string{
			"AT+QMTCONN=": ok + "\r\n+QMTSTAT: 0,1\r\n¦\r\n+QMTCONN: 0,0,4\r\n"}, login: "bad user name or password (4)"},
		{name: "the connection is lost in the login", answers: map[string]string{
			"AT+QMTCONN=": ok + "\r\n+QMTSTAT: 0,1\r\n¦"}, login: "the connection to the broker was lost"},
		{name: "a login that is not answered", answers: map[string]string{"AT+QMTCONN=": ok + "¦"}, login: "did not answer the login"},
		{name: "no name", answers: map[string]string{"AT+QMTOPEN": ok + "¦\r\n+QMTOPEN: 0,4\r\n"}, login: "broker.example"},
		{name: "no data connection", answers: map[string]string{"AT+QMTOPEN": ok + "¦\r\n+QMTOPEN: 0,3\r\n"}, login: "there is no data connection (3)"},
		{name: "nobody there", answers: map[string]string{"AT+QMTOPEN": ok + "¦\r\n+QMTOPEN: 0,5\r\n"}, login: "did not answer or refused (5)"},
		{name: "an opening that fails", answers: map[string]string{"AT+QMTOPEN": ok + "¦\r\n+QMTOPEN: 0,-1\r\n"}, login: "could not be opened (-1)"},
		{name: "a client in use", answers: map[string]string{"AT+QMTOPEN": ok + "¦\r\n+QMTOPEN: 0,2\r\n"}, login: "in use (2)"},
		{name: "the broker has closed it", says: "¦\r\n+QMTSTAT: 0,1\r\n", ends: "closed or reset by the broker (1)"},
		{name: "a ping that was not answered", says: "¦\r\n+QMTSTAT: 0,2\r\n¦", ends: "did not answer a ping (2)"},
		{name: "sending fails", says: "\r\n+QMTSTAT: 0,6\r\n", ends: "sending failed again and again (6)"},
		{name: "the link is down", says: "\r\n+QMTSTAT:0,7\r\n", ends: "the link is down"},
		{name: "another client's end is not ours", says: "\r\n+QMTSTAT: 3,1\r\n¦\r\n+QMTPUBEX: 3,1,2\r\n"},
		{name: "the module closes it", says: "\r\n+QMTCLOSE: 0,0\r\n", ends: "the module has closed the connection"},
		{name: "the data connection is closed", says: "¦\r\n+QIURC: \"pdpdeact\",1\r\n¦", ends: "the network closed the data connection"},
		{name: "another data connection is closed", says: "¦\r\n+QIURC: \"pdpdeact\",2\r\n¦"},
		{name: "a restart", says: "\r\n^boot.rom'v\x01\r\n\r\nRDY\r\n", ends: "restarted"},
	})
}

func length(s string) string { return strconv.Itoa(len(s)) }
