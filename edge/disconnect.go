package edge

import (
	"errors"

	"holdfast"
	"holdfast/edge/packet"
)

// The ends of a connection that are the broker's own doing. The code is what a
// client of MQTT 5 is told.
var (
	errShutdown = &packet.Error{Code: packet.ServerShuttingDown, Text: "the gateway is shutting down"}
	errSlow     = &packet.Error{Code: packet.QuotaExceeded, Text: "the client reads too slowly for its QoS 1 and 2 messages (limits.max_outbound_bytes)"}
	errBehind   = &packet.Error{Code: packet.QuotaExceeded, Text: "the client does not take the retained messages that it has asked for (limits.max_retained_waiting)"}
	errTakeover = &packet.Error{Code: packet.SessionTakenOver, Text: "another connection has taken over the client identifier"}
	errDeaf     = &packet.Error{Code: packet.QuotaExceeded, Text: "the client does not read its answers"}
)

// codeOf is the reason that a client of MQTT 5 is told for the end of its
// connection; ok is false if it is told none, since it said goodbye or is gone.
// Only the text of a packet.Error is for the client; what else went wrong is for
// the log.
func codeOf(cause error) (code packet.ReasonCode, text string, ok bool) {
	var told *packet.Error
	switch {
	case errors.Is(cause, errDisconnected), errors.Is(cause, errLost):
		return 0, "", false
	case errors.As(cause, &told):
		return told.Code, told.Text, true
	case errors.Is(cause, holdfast.ErrTooLarge):
		return packet.PacketTooLarge, "", true
	case errors.Is(cause, holdfast.ErrFull):
		return packet.QuotaExceeded, "", true
	}
	return packet.ImplementationSpecificError, "", true
}

// appendDisconnect appends the DISCONNECT that tells a client of MQTT 5 why its
// connection ends (MQTT 5, 3.14). The reason string goes only if the packet is
// then within the client's Maximum Packet Size [MQTT-3.14.2-3].
func (c *conn) appendDisconnect(dst []byte, cause error) []byte {
	code, text, ok := codeOf(cause)
	if !ok || c.version != packet.V5 {
		return dst
	}
	for _, p := range []packet.Disconnect{
		{Code: code, Properties: &packet.Properties{ReasonString: text}}, {Code: code},
	} {
		if out, err := p.Append(dst, c.version); err == nil && c.takes(len(out)-len(dst)) {
			return out
		}
	}
	return dst
}

// takes reports whether the client takes a packet of n bytes [MQTT-3.1.2-24].
func (c *conn) takes(n int) bool { return c.maxPacket == 0 || n <= c.maxPacket }

// handleDisconnect ends the connection as the client wishes: after reason code 0
// its will is deleted without being published [MQTT-3.14.4-3].
func (c *conn) handleDisconnect(body []byte) error {
	var p packet.Disconnect
	if err := p.Decode(body, c.version); err != nil {
		return err
	}
	if p.Properties != nil && p.Properties.HasSessionExpiry {
		if !c.sess.setExpiry(p.Properties.SessionExpiry) {
			return &packet.Error{Code: packet.ProtocolError,
				Text: "DISCONNECT sets a Session Expiry Interval where CONNECT had 0 (MQTT 5, 3.14.2.2.2)"}
		}
	}
	if p.Code != packet.NormalDisconnection {
		return errDisconnected
	}
	c.clean = true
	if c.will != nil {
		// A crash before this is on disk publishes the will of a client that
		// had said goodbye, which the specification allows (3.1.2.5).
		c.srv.opts.Store.SetWill(c.clientID, nil, func(error) {})
	}
	return errDisconnected
}
