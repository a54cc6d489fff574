package modem

import (
	"testing"

	"holdfast"
)

// What SIMCom firmware says. A request that fails is told by a URC and ERROR, or by
// OK and a URC.
func TestTranscriptsOfSIMComFirmware(t *testing.T) {
	playTranscripts(t, "cmqtt", map[string]string{
		"AT+CMQTTDISC":     "¦\r\n+CMQTTDISC: 0,11\r\n¦\r\nERROR\r\n",
		"AT+CMQTTREL":      "¦\r\n+CMQTTREL: 0,20\r\n¦\r\nERROR\r\n",
		"AT+CMQTTSTOP":     "¦\r\n+CMQTTSTOP: 11\r\n¦\r\nERROR\r\n",
		"AT+CMQTTSTART":    "¦" + ok + "¦\r\n+CMQTTSTART: 0\r\n¦",
		"AT+CMQTTCONNECT=": "¦" + ok + "¦\r\n+CMQTTCONNECT: 0,0\r\n¦",
		"AT+CMQTTSUB=":     "¦\r\n>\x01¦" + ok + "¦\r\n+CMQTTSUB: 0,0\r\n¦",
		"AT+CMQTTTOPIC":    "¦\r\n>\x01¦" + ok + "¦",
		"AT+CMQTTPAYLOAD":  "¦\r\n> \x01¦" + ok + "¦",
		"AT+CMQTTPUB":      "¦" + ok + "¦\r\n+CMQTTPUB: 0,0\r\n¦",
	}, []transcript{
		{name: "plain", heard: []string{"> cmd/#", "> a/b", "> 21.5", "AT+CMQTTPUB=0,1,60"}},
		{name: "every byte up", publish: []holdfast.Message{{Topic: "t", Payload: []byte(everyByte), QoS: 1}}, heard: []string{"> " + everyByte}},
		{name: "several up", publish: []holdfast.Message{
			{Topic: "t", Payload: []byte("1"), QoS: 2}, {Topic: "t", Payload: []byte("2"), QoS: 0}},
			heard: []string{"AT+CMQTTPUB=0,2,60", "AT+CMQTTPUB=0,0,60"}},
		{name: "the service runs already", answers: map[string]string{"AT+CMQTTSTART": ok + "¦\r\n+CMQTTSTART: 23\r\n"}},
		{name: "the service runs already, and that is an error", answers: map[string]string{"AT+CMQTTSTART": "\r\n+CMQTTSTART: 23\r\n¦\r\nERROR\r\n"}},
		{name: "the service does not start", answers: map[string]string{"AT+CMQTTSTART": ok + "¦\r\n+CMQTTSTART: 3\r\n"}, login: "service does not start (code 3)"},
		{name: "the client was kept", answers: map[string]string{"AT+CMQTTACCQ": "\r\n+CMQTTACCQ: 0,19\r\n¦\r\nERROR\r\n"}, login: "gives no MQTT client"},
		{name: "the result of the login before the OK", answers: map[string]string{"AT+CMQTTCONNECT=": "\r\n+CMQTTCONNECT: 0,0\r\n¦" + ok}},
		{name: "a login that fails and then does not", answers: map[string]string{"AT+CMQTTCONNECT=": ok + "\r\n+CMQTTCONNECT: 0,3\r\n¦\r\n+CMQTTCONNECT: 0,0\r\n"}},
		{name: "an unacceptable protocol", answers: map[string]string{"AT+CMQTTCONNECT=": ok + "¦\r\n+CMQTTCONNECT: 0,27\r\n"}, login: "(1)"},
		{name: "an unacceptable name", answers: map[string]string{"AT+CMQTTCONNECT=": ok + "¦\r\n+CMQTTCONNECT: 0,28\r\n"}, login: "identifier rejected (2)"},
		{name: "a server that is not there", answers: map[string]string{"AT+CMQTTCONNECT=": ok + "¦\r\n+CMQTTCONNECT: 0,29\r\n"}, login: "(3)"},
		{name: "a wrong password", answers: map[string]string{"AT+CMQTTCONNECT=": ok + "¦\r\n+CMQTTCONNECT: 0,30\r\n"}, login: "bad user name or password (4)"},
		{name: "not authorized", answers: map[string]string{"AT+CMQTTCONNECT=": ok + "¦\r\n+CMQTTCONNECT: 0,31\r\n"}, login: "not authorized (5)"},
		{name: "no name", answers: map[string]string{"AT+CMQTTCONNECT=": ok + "¦\r\n+CMQTTCONNECT: 0,25\r\n"}, login: "broker.example"},
		{name: "TLS where there is none", answers: map[string]string{"AT+CMQTTCONNECT=": ok + "¦\r\n+CMQTTCONNECT: 0,32\r\n"}, login: "TLS failed, code 32"},
		{name: "a login that is not taken", answers: map[string]string{"AT+CMQTTCONNECT=": "¦\r\nERROR\r\n"}, login: "did not take the login"},
		{name: "the result of a publish before the OK", answers: map[string]string{"AT+CMQTTPUB": "\r\n+CMQTTPUB: 0,0\r\n¦" + ok}},
		{name: "a publish without the space", answers: map[string]string{"AT+CMQTTPUB": ok + "\r\n+CMQTTPUB:0,0\r\n"}},
		{name: "a publish that fails", answers: map[string]string{"AT+CMQTTPUB": ok + "¦\r\n+CMQTTPUB: 0,17\r\n"}, err: "unknown", ends: "time-out, code 17"},
		{name: "a publish without a connection", answers: map[string]string{"AT+CMQTTPUB": "\r\n+CMQTTPUB: 0,11\r\n¦\r\nERROR\r\n"}, err: "unknown", ends: "does not publish any more"},
		{name: "a topic that is not taken", answers: map[string]string{"AT+CMQTTTOPIC": "\r\n+CMQTTTOPIC: 0,22\r\n¦\r\nERROR\r\n"}, err: "rejects this message"},
		{name: "a command comes down", says: "¦\r\n+CMQTTRXSTART: 0,5,2\r\n¦\r\n+CMQTTRXTOPIC: 0,5\r\ncmd/1\r\n¦+CMQTTRXPAYLOAD: 0,2\r\non\r\n¦+CMQTTRXEND: 0\r\n¦", got: []string{"cmd/1 on"}},
		{name: "a command in pieces", says: "\r\n+CMQTTRXSTART: 0,5,6\r\n+CMQTTRXTOPIC: 0,2\r\ncm\r\n¦+CMQTTRXTOPIC: 0,3\r\nd/1\r\n¦+CMQTTRXPAYLOAD: 0,4\r\n\r\nOK\r\n¦+CMQTTRXPAYLOAD: 0,2\r\n> \r\n+CMQTTRXEND: 0\r\n",
			got: []string{"cmd/1 \r\nOK> "}},
		{name: "every byte down", says: "\r\n+CMQTTRXSTART: 0,1," + length(everyByte) + "\r\n+CMQTTRXTOPIC: 0,1\r\nt\r\n+CMQTTRXPAYLOAD: 0," + length(everyByte) + "\r\n" + everyByte + "\r\n+CMQTTRXEND: 0\r\n",
			got: []string{"t " + everyByte}},
		{name: "an empty command", says: "\r\n+CMQTTRXSTART: 0,1,0\r\n+CMQTTRXTOPIC: 0,1\r\nt\r\n¦+CMQTTRXEND: 0\r\n", got: []string{"t "}},
		{name: "a command that is not whole", says: "\r\n+CMQTTRXSTART: 0,1,4\r\n+CMQTTRXTOPIC: 0,1\r\nt\r\n+CMQTTRXPAYLOAD: 0,2\r\non\r\n¦+CMQTTRXEND: 0\r\n", lost: 1},
		{name: "a command without its end", says: "\r\n+CMQTTRXSTART: 0,1,2\r\n+CMQTTRXTOPIC: 0,1\r\na\r\n¦\r\n+CMQTTRXSTART: 0,1,2\r\n+CMQTTRXTOPIC: 0,1\r\nb\r\n+CMQTTRXPAYLOAD: 0,2\r\non\r\n+CMQTTRXEND: 0\r\n",
			lost: 1, got: []string{"b on"}},
		{name: "a command comes down in the reply to a publish", answers: map[string]string{
			"AT+CMQTTPAYLOAD": "\r\n+CMQTTRXSTART: 0,1,4\r\n+CMQTTRXTOPIC: 0,1\r\nt\r\n+CMQTTRXPAYLOAD: 0,4\r\n\r\n> \r\n+CMQTTRXEND: 0\r\n¦\r\n> \x01" + ok},
			got: []string{"t \r\n> "}},
		{name: "the connection is lost", says: "¦\r\n+CMQTTCONNLOST: 0,2\r\n¦", ends: "the connection to the broker was lost"},
		{name: "a ping that was not answered", says: "\r\n+CMQTTPING: 0,17\r\n", ends: "did not answer a ping"},
		{name: "a ping that was answered", says: "¦\r\n+CMQTTPING: 0,0\r\n¦"},
		{name: "no network", says: "¦\r\n+CMQTTNONET\r\n¦", ends: "no network any more"},
		{name: "a restart", says: "\r\nRDY\r\n¦", ends: "restarted"},
	})
}
