package modem

import "testing"

// Firmware that has the number of the SIM under the last name that is tried only, and
// answers by another one.
func TestTheNumberOfTheSIMIsReadFromASIMComModule(t *testing.T) {
	f := registered(t)
	for _, c := range []string{"AT+ECICCID", "AT+ICCID", "AT+CCID", "AT+QCCID"} {
		f.on(c, "\r\nERROR\r\n")
	}
	f.on("AT+CICCID", "\r\n+ICCID: 89860000000000000007\r\n"+ok)
	withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
		up(t, m)
		if got := m.Status().ICCID.Value; got != "89860000000000000007" {
			t.Errorf("got %q", got)
		}
	})
}

func TestWhatAModuleSaysOfAFailedConnectionNamesItsLayer(t *testing.T) {
	for code, layer := range map[string]string{"565": "dns", "566": "tcp", "999": "tcp"} {
		err, ok := errDial("broker.example", 1883, qiError(code)).(*UnreachableError)
		if !ok || err.Layer != layer {
			t.Errorf("%s: %+v, want %s", code, err, layer)
		}
	}
}
