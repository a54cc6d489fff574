package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"holdfast"
	"holdfast/cmd/holdfast/client"
	"holdfast/edge/packet"
)

// brokerFlags say which broker pub and sub talk to.
type brokerFlags struct {
	host, topic, id              string
	user, password, passwordFile string
	port, qos                    int
}

func (b *brokerFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&b.host, "host", "127.0.0.1", "host of the broker")
	cmd.Flags().IntVarP(&b.port, "port", "p", 1883, "port of the broker")
	cmd.Flags().StringVarP(&b.topic, "topic", "t", "", "the topic")
	cmd.Flags().IntVarP(&b.qos, "qos", "q", 0, "quality of service: 0, 1 or 2")
	cmd.Flags().StringVarP(&b.id, "id", "i", "", "client identifier (default: one of its own)")
	cmd.Flags().StringVarP(&b.user, "user", "u", "", "user name")
	cmd.Flags().StringVarP(&b.password, "password", "P", "", "its password, which others on this board can see meanwhile")
	cmd.Flags().StringVar(&b.passwordFile, "password-file", "", "a file with the password")
}

// check finds what makes no sense, and chooses a client identifier.
func (b *brokerFlags) check() error {
	switch {
	case b.topic == "":
		return usageError{errors.New("which topic? Write -t TOPIC")}
	case b.qos < 0 || b.qos > 2:
		return usageError{errors.New("-q is 0, 1 or 2")}
	case b.port < 1 || b.port > 65535:
		return usageError{errors.New("-p is a port from 1 to 65535")}
	}
	if b.passwordFile != "" {
		if b.password != "" {
			return usageError{errors.New("-P or --password-file, not both")}
		}
		var err error
		if b.password, err = passwordIn(b.passwordFile, "--password-file"); err != nil {
			return err
		}
	}
	if b.password != "" && b.user == "" {
		return usageError{errors.New("a password is that of a user: write -u USER too")}
	}
	if b.id == "" {
		b.id = fmt.Sprintf("holdfast-%d", os.Getpid())
	}
	return nil
}

// dial connects; the connection ends with ctx.
func (b *brokerFlags) dial(ctx context.Context) (*client.Client, func(), error) {
	c, err := client.Dial(ctx, net.JoinHostPort(b.host, strconv.Itoa(b.port)), packet.Connect{
		ClientID: b.id, CleanStart: true, Username: b.user, HasUsername: b.user != "", Password: []byte(b.password), HasPassword: b.password != "",
	})
	var refused client.Refused
	if errors.As(err, &refused) {
		if code := byte(refused); code == packet.RefusedBadLogin || code == packet.RefusedNotAuthorized {
			return nil, nil, fmt.Errorf("%w: check -u and its password; the log of the broker says more", err)
		}
		return nil, nil, err
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%w; is the broker running, with a listener there?", err)
	}
	stop := context.AfterFunc(ctx, func() { c.Conn.Close() })
	return c, func() { stop(); c.Conn.Close() }, nil
}

// maxPayload is the largest payload that MQTT can carry.
const maxPayload = 256 << 20

func newPubCommand() *cobra.Command {
	var b brokerFlags
	var message, file string
	var retain bool
	cmd := &cobra.Command{
		Use:   "pub -t TOPIC [-m TEXT | -f FILE]",
		Short: "Publish one message, to try things",
		Long: `Publish one message. Its payload is the text, the file, or else all of standard
input. With QoS 1 and 2 it ends when the broker has acknowledged the message.`,
		Example: `  holdfast pub -t sensors/1 -m 21.5 -q 1`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := b.check(); err != nil {
				return err
			}
			payload := []byte(message)
			if !cmd.Flags().Changed("message") {
				in := cmd.InOrStdin()
				if file != "" && file != "-" {
					f, err := os.Open(file)
					if err != nil {
						return usageError{err}
					}
					defer f.Close()
					in = f
				}
				var err error
				if payload, err = io.ReadAll(io.LimitReader(in, maxPayload+1)); err != nil {
					return fmt.Errorf("read the payload: %w", err)
				}
			} else if file != "" {
				return usageError{errors.New("-m or -f, not both")}
			}
			if len(payload) > maxPayload {
				return usageError{errors.New("the payload is larger than MQTT can carry")}
			}
			return publish(cmd.Context(), &b, payload, retain)
		},
	}
	b.add(cmd)
	cmd.Flags().StringVarP(&message, "message", "m", "", "the payload")
	cmd.Flags().StringVarP(&file, "file", "f", "", "a file with the payload; - is standard input")
	cmd.Flags().BoolVarP(&retain, "retain", "r", false, "have the broker keep it for later subscribers")
	return cmd
}

// publish sends one message and waits for what its QoS promises.
func publish(ctx context.Context, b *brokerFlags, payload []byte, retain bool) error {
	c, end, err := b.dial(ctx)
	if err != nil {
		return err
	}
	defer end()
	p := packet.Publish{Topic: []byte(b.topic), Payload: payload, QoS: byte(b.qos), Retain: retain}
	if p.QoS > 0 {
		p.PacketID = 1
	}
	if err := c.Send(p.Append(nil, packet.V311)); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	wait := map[int][]packet.Type{1: {packet.PUBACK}, 2: {packet.PUBREC, packet.PUBCOMP}}
	for _, want := range wait[b.qos] {
		h, _, err := c.Next()
		if err != nil {
			return fmt.Errorf("the broker has not acknowledged the message: %w", cause(ctx, err))
		}
		if h.Type != want {
			return fmt.Errorf("%v instead of %v", h.Type, want)
		}
		if want == packet.PUBREC {
			if err := c.Ack(packet.PUBREL, 1); err != nil {
				return fmt.Errorf("release: %w", err)
			}
		}
	}
	return c.Disconnect()
}

// cause prefers the reason why a connection was ended from here.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	return err
}

func newSubCommand() *cobra.Command {
	var b brokerFlags
	var most int
	cmd := &cobra.Command{
		Use:   "sub -t FILTER",
		Short: "Print messages as they come, to try things",
		Long: `Subscribe, and print topic and payload of each message on a line of its own, until
it is interrupted or has printed as many as -C says.`,
		Example: `  holdfast sub -t 'sensors/#' -q 1`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := b.check(); err != nil {
				return err
			}
			if most < 0 {
				return usageError{errors.New("-C is a number of messages; 0 is no end")}
			}
			return subscribe(cmd.Context(), &b, most, cmd.OutOrStdout())
		},
	}
	b.add(cmd)
	cmd.Flags().IntVarP(&most, "count", "C", 0, "end after this many messages; 0 is no end")
	return cmd
}

func subscribe(ctx context.Context, b *brokerFlags, most int, out io.Writer) error {
	c, end, err := b.dial(ctx)
	if err != nil {
		return err
	}
	defer end()
	if err := c.Subscribe(holdfast.Subscription{Filter: b.topic, QoS: byte(b.qos)}); err != nil {
		return cause(ctx, err)
	}
	for n := 1; ; n++ {
		p, err := c.NextPublish()
		switch {
		case ctx.Err() != nil:
			return nil // it was told to end
		case err != nil:
			return fmt.Errorf("the broker has ended the connection: %w", err)
		}
		line := append(append([]byte(nil), p.Topic...), ' ')
		if _, err := out.Write(append(append(line, p.Payload...), '\n')); err != nil {
			return err
		}
		if n == most {
			return c.Disconnect()
		}
	}
}
