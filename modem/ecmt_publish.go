package modem

import (
	"errors"
	"fmt"
	"strconv"

	"holdfast"
	"holdfast/modem/at"
)

// Limits of one message (Eigencomm ECMT: ECMTPUB, and its packet buffer of
// 4+128+1024 bytes).
const (
	maxTopic   = 255
	maxPayload = 1024
	maxPacket  = 1156
	// packetOverhead is what a PUBLISH has besides topic and payload, and room.
	packetOverhead = 10
)

// carriable says why msg cannot go this way; nil if it can. The payload stands
// in the command line: no firmware unescapes it, and one below 0x20 would end
// or corrupt the line. A payload may have quotation marks, since the firmware
// takes exactly one off each end; a topic may not.
func carriable(msg *holdfast.Message) error {
	switch {
	case msg.Topic == "":
		return fmt.Errorf("it has no topic: %w", holdfast.ErrRefused)
	case len(msg.Topic) > maxTopic:
		return fmt.Errorf("its topic has %d bytes, and this module takes %d: %w", len(msg.Topic), maxTopic, holdfast.ErrTooLarge)
	case len(msg.Payload) > maxPayload:
		return fmt.Errorf("its payload has %d bytes, and this module takes %d: %w", len(msg.Payload), maxPayload, holdfast.ErrTooLarge)
	case len(msg.Topic)+len(msg.Payload)+packetOverhead > maxPacket:
		return fmt.Errorf("its topic and payload have %d bytes, and this module takes %d together: %w",
			len(msg.Topic)+len(msg.Payload), maxPacket-packetOverhead, holdfast.ErrTooLarge)
	case msg.QoS > 2:
		return fmt.Errorf("its QoS is %d: %w", msg.QoS, holdfast.ErrRefused)
	}
	if why := unquotable(msg.Topic); why != "" {
		return fmt.Errorf("its topic has %s, which an AT command cannot carry: %w", why, holdfast.ErrRefused)
	}
	for i, c := range msg.Payload {
		if c < ' ' {
			return fmt.Errorf("its payload is binary (0x%02x at %d), and this module carries text in one line only; "+
				"give its route encoding = \"base64\", or use mode = \"socket\": %w", c, i, holdfast.ErrRefused)
		}
	}
	return nil
}

// publishCommand is the command for msg. The payload is always in quotes, of
// which the firmware takes one off each end. An empty payload is "" then; a
// firmware that takes that for no payload asks for data with a prompt, and gets
// the end of data (Ctrl-Z) at once: an empty message either way.
func publishCommand(msg *holdfast.Message, id uint16) at.Command {
	retain := 0
	if msg.Retain {
		retain = 1
	}
	c := at.Command{Text: fmt.Sprintf(`AT+ECMTPUB=0,%d,%d,%d,"%s","%s"`, id, msg.QoS, retain, msg.Topic, msg.Payload)}
	if len(msg.Payload) == 0 {
		c.Payload = []byte{0x1a}
	}
	return c
}

// ecmtHand hands one publish over. Its result may come before the module's OK,
// or never: the module sends no URC if the broker does not acknowledge, so the
// acknowledgement is timed here. After one that did not come nothing is known
// of the connection, and the session ends.
func (s *Session) ecmtHand(p *publish) {
	c := publishCommand(p.msg, p.id)
	_, err := s.e.Do(s.cmd, c)
	if at.IsRejection(err) {
		if s.refusedByModule(p, err) {
			return
		}
		_, err = s.e.Do(s.cmd, c)
		if at.IsRejection(err) {
			s.rejectedTwice(p, err)
			return
		}
	}
	if err != nil {
		s.fail(unanswered(err))
		return
	}
	s.handed(p)
}

// refusedByModule looks at a rejected publish. The module has one error code
// for a message that it does not like and for a connection that is gone, so it
// is asked which. It reports whether the publish is over.
func (s *Session) refusedByModule(p *publish, err error) bool {
	state, stateErr := s.m.ecmtState(s.cmd, s.e)
	if stateErr == nil && state == ecmtConnected {
		return false
	}
	s.fail(fmt.Errorf("the module does not publish any more; its connection is gone (%w)", errors.Join(err, stateErr)))
	return true
}

// published takes `+ECMTPUB: 0,<msgid>,<result>`. For QoS 2 the result 0 is the
// PUBCOMP, for QoS 1 the PUBACK, for QoS 0 that it was written.
func (s *Session) published(args []string) {
	if len(args) < 3 {
		return
	}
	id, err := strconv.ParseUint(args[1], 10, 16)
	if err != nil {
		return
	}
	s.mu.Lock()
	p := s.inflight[uint16(id)]
	s.mu.Unlock()
	switch {
	case p == nil: // the late result of an earlier session
		s.log.Debug("result for no publish", "msgid", id)
	case args[2] == "0":
		s.settle(p, nil)
	default:
		s.fail(publishResult(args[2]))
	}
}
