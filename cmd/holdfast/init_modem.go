package main

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.bug.st/serial"

	"holdfast/modem"
)

// serialPorts are the ports on which a module may be, the likely ones first.
func serialPorts() (ports []string) {
	for _, pattern := range []string{"/dev/ttyUSB*", "/dev/ttyACM*", "/dev/serial0", "/dev/ttyAMA*", "/dev/ttyS[0-3]"} {
		found, _ := filepath.Glob(pattern)
		slices.Sort(found)
		ports = append(ports, found...)
	}
	return ports
}

// findModem is the first port on which something answers AT.
func findModem(ports []string, answers func(port string) error) (string, error) {
	var tried []string
	for _, p := range ports {
		err := answers(p)
		if err == nil {
			return p, nil
		}
		tried = append(tried, p+": "+err.Error())
	}
	if len(tried) == 0 {
		return "", errors.New("this machine shows no serial port: is the module plugged in, and the UART enabled (Raspberry Pi: enable_uart=1 in config.txt)?")
	}
	return "", fmt.Errorf("no module answers on any port: is it powered, are TX and RX crossed, does another program have the port?\n%s", strings.Join(tried, "\n"))
}

// lastingName is what to write for a port, so that it is found again when the
// module is plugged in again.
func lastingName(port string) string {
	for _, p := range modem.Ports() {
		if p.Name == port {
			return p.Value
		}
	}
	return port
}

// answersAT asks for a sign of life at the usual speeds.
func answersAT(port string) error {
	p, err := serial.Open(port, &serial.Mode{BaudRate: 115200})
	if err != nil {
		return err
	}
	defer p.Close()
	for _, baud := range []int{115200, 9600, 921600, 460800} {
		if err := p.SetMode(&serial.Mode{BaudRate: baud}); err != nil {
			continue
		}
		for range 2 { // the first may only teach the module the speed
			if saysOK(p, 500*time.Millisecond) {
				return nil
			}
		}
	}
	return errors.New("no answer to AT")
}

// saysOK sends AT and waits for OK, at most for d.
func saysOK(p serial.Port, d time.Duration) bool {
	if _, err := p.Write([]byte("AT\r")); err != nil {
		return false
	}
	deadline := time.Now().Add(d)
	if err := p.SetReadTimeout(50 * time.Millisecond); err != nil {
		return false
	}
	var heard []byte
	for len(heard) < 4096 && time.Now().Before(deadline) {
		b := make([]byte, 256)
		n, err := p.Read(b)
		if err != nil {
			return false
		}
		heard = append(heard, b[:n]...)
		if bytes.Contains(heard, []byte("\r\nOK\r\n")) || bytes.Contains(heard, []byte("\r0\r")) {
			return true
		}
	}
	return false
}
