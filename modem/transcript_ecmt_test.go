package modem

import (
	"testing"

	"holdfast"
)

// What Eigencomm firmware says, as its source, its manual and the logs of users have it.
func TestTranscriptsOfEigencommFirmware(t *testing.T) {
	playTranscripts(t, "ecmt", map[string]string{
		"AT+ECMTCFG=?":  "\r\n+ECMTCFG:\"keepalive\",(0),(0-3600)\r\n¦" + ok,
		"AT+ECMTCONN?":  "¦\r\n+ECMTCONN:0,4\r\n¦" + ok,
		"AT+ECMTDISC":   "¦\r\n+CME ERROR: 3\r\n¦",
		"AT+ECMTCLOSE":  "¦\r\n+CME ERROR: 3\r\n¦",
		"AT+ECMTOPEN":   "¦" + ok + "¦\r\n+ECMTOPEN: 0,0\r\n¦",
		"AT+ECMTCONN=0": "¦" + ok + "¦\r\n+ECMTCONN: 0,0,0\r\n¦",
		"AT+ECMTSUB":    "¦" + ok + "¦\r\n+ECMTSUB: 0,#,0,1\r\n¦",
		"AT+ECMTPUB":    "¦" + ok + "¦\r\n+ECMTPUB: 0,#,0\r\n¦",
	}, []transcript{
		{name: "plain"},
		{name: "several up", publish: []holdfast.Message{
			{Topic: "t", Payload: []byte(`{"a":"b, c"}`), QoS: 1}, {Topic: "t", Payload: []byte(`"2"`), QoS: 0},
			{Topic: "t", Payload: []byte("a;b"), QoS: 2}, {Topic: "t", Payload: []byte("4"), QoS: 1}}},
		{name: "results without the space", answers: map[string]string{
			"AT+ECMTOPEN": ok + "¦\r\n+ECMTOPEN:0,0\r\n", "AT+ECMTCONN=0": ok + "¦\r\n+ECMTCON:0,0,0\r\n",
			"AT+ECMTSUB": ok + "¦\r\n+ECMTSUB:0,#,0,1\r\n", "AT+ECMTPUB": ok + "¦\r\n+ECMTPUB:0,#,0\r\n"}},
		{name: "results before their OK", answers: map[string]string{
			"AT+ECMTOPEN": "\r\n+ECMTOPEN: 0,0\r\n¦" + ok, "AT+ECMTCONN=0": "\r\n+ECMTCONN: 0,0,0\r\n¦" + ok,
			"AT+ECMTSUB": "\r\n+ECMTSUB: 0,#,0,1\r\n¦" + ok, "AT+ECMTPUB": "\r\n+ECMTPUB: 0,#,0\r\n¦" + ok}},
		{name: "echo is on", answers: map[string]string{
			"AT+ECMTSUB": "AT+ECMTSUB=0,#,\"cmd/#\",1\r¦" + ok + "\r\n+ECMTSUB: 0,#,0,1\r\n",
			"AT+ECMTPUB": "AT+ECMTPUB=0,#,1,0,\"a/b\",\"21.5\"\r" + ok + "¦\r\n+ECMTPUB: 0,#,0\r\n"}},
		{name: "two results for one login", answers: map[string]string{"AT+ECMTCONN=0": ok + "\r\n+ECMTCONN: 0,2,2\r\n¦\r\n+ECMTCONN: 0,0,0\r\n"}},
		{name: "a refused login", answers: map[string]string{"AT+ECMTCONN=0": ok + "¦\r\n+ECMTCONN: 0,0,5\r\n"}, login: "not authorized (5)"},
		{name: "a refused login in the short spelling", answers: map[string]string{"AT+ECMTCONN=0": ok + "¦\r\n+ECMTCON:0,0,5\r\n"}, login: "not authorized (5)"},
		{name: "a refusal behind the loss of the connection", answers: map[string]string{
			"AT+ECMTCONN=0": ok + "¦\r\n+ECMTSTAT: 0,1\r\n¦\r\n+ECMTCONN: 0,0,5\r\n"}, login: "not authorized (5)"},
		{name: "the connection is lost in the login", answers: map[string]string{
			"AT+ECMTCONN=0": ok + "¦\r\n+ECMTSTAT: 0,1\r\n¦"}, login: "the connection to the broker was lost"},
		{name: "a login that could not be sent", answers: map[string]string{"AT+ECMTCONN=0": ok + "¦\r\n+ECMTCONN: 0,2,2\r\n"}, login: "could not send"},
		{name: "an answer that could not be read", answers: map[string]string{"AT+ECMTCONN=0": ok + "¦\r\n+ECMTCONN: 0,0,6\r\n"}, login: "could not read the answer"},
		{name: "a login that is not answered", answers: map[string]string{"AT+ECMTCONN=0": ok + "¦"}, login: "did not answer the login"},
		{name: "nobody there", answers: map[string]string{"AT+ECMTOPEN": ok + "¦\r\n+ECMTOPEN: 0,-1\r\n"}, login: "could not reach broker.example:1883"},
		{name: "no data connection", answers: map[string]string{"AT+ECMTOPEN": "¦\r\n+CME ERROR: 3\r\n"}, login: "SIM has data"},
		{name: "an opening that says nothing more", answers: map[string]string{"AT+ECMTOPEN": ok + "¦"}, login: "the module"},
		{name: "a publish that could not be sent", answers: map[string]string{"AT+ECMTPUB": ok + "¦\r\n+ECMTPUB: 0,#,2\r\n"}, err: "unknown", ends: "result 2"},
		{name: "commands come down", says: "¦\r\n+ECMTRECV: 0,0,\"a/b\",21.5\r\n¦\r\n+ECMTRECV:0,7,\"a/b\",\"on\"\r\n¦\r\n+ECMTRECV: 0,0,\"c,\",{\"x\":\"y, z\"}\r\n¦",
			got: []string{"a/b 21.5", "a/b on", `c, {"x":"y, z"}`}},
		{name: "a command over several lines", says: "\r\n+ECMTRECV: 0,0,\"a\",{\r\n\"x\":\r\nOK\r\n\r\n+ECMTSTAT: 0,1\r\n}\r\n", got: []string{"a {\r\n\"x\":\r\nOK\r\n\r\n+ECMTSTAT: 0,1\r\n}"}},
		{name: "a command comes down in the reply to a publish", answers: map[string]string{
			"AT+ECMTPUB": "\r\n+ECMTRECV: 0,0,\"cmd\",{\"a\":\r\nOK\r\n}\r\n¦" + ok + "\r\n+ECMTRECV: 0,1,\"cmd\",x\r\n¦\r\n+ECMTPUB: 0,#,0\r\n"},
			got: []string{"cmd {\"a\":\r\nOK\r\n}", "cmd x"}},
		{name: "a command that is not one", says: "\r\n+ECMTRECV: 0\r\n¦\r\n+ECMTRECV: 0,0,topic,x\r\n¦\r\n+ECMTRECV: 0,0,\"a\",x\r\n", lost: 2, got: []string{"a x"}},
		{name: "a link that is lost", says: "¦\r\n+ECMTSTAT: 0,1\r\n¦", ends: "lost"},
		{name: "a reconnect of the firmware's own", says: "¦\r\n+ECMTCONN: 0,0,0\r\n¦", ends: "by itself"},
		{name: "a disconnect that nobody asked for", says: "¦\r\n+ECMTDISC: 0,0\r\n¦", ends: "closed"},
		{name: "a boot with two greetings", says: "^boot.rom'v\x01\xe0\r\nRDY\r\n¦\r\nRDY\r\n", ends: "restarted"},
		{name: "a data connection that is closed", says: "¦\r\n+CGEV: ME PDN DEACT 1\r\n¦", ends: "data connection"},
	})
}
