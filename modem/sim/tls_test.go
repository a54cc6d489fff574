package sim

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"math/big"
	"net"
	"testing"
	"time"
)

func TestWithACertificateTheConnectionIsTLS(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	b := newBroker(t)
	serve := func() *peer {
		p := b.accept()
		c := tls.Server(p.c, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
		p.c, p.r = c, nil
		go c.Handshake() // a failure shows at the other end
		return p
	}
	h := power(t, Options{}).setUp()
	h.ok(`AT+ECMTCFG="ssl","ca","`+base64.StdEncoding.EncodeToString(der)+`"`, b.open())
	p := serve()
	h.urc("+ECMTOPEN: 0,0")
	h.ok(`AT+ECMTCONN=0,"gw","user","secret"`)
	p.r = bufio.NewReader(p.c)
	p.connect(0)
	h.urc("+ECMTCONN: 0,0,0")
	h.ok("AT+ECMTCLOSE=0")
	h.urc("+ECMTCLOSE: 0,0")

	// For another name the certificate is no good.
	h.ok(`AT+ECMTCFG="ssl","ca","`+base64.StdEncoding.EncodeToString(der)+`","other.example"`, b.open())
	serve()
	h.urc("+ECMTOPEN: 0,-1")
	h.ok(`AT+ECMTCFG="ssl","psk","key","id"`, b.open())
	h.urc("+ECMTOPEN: 0,-1")
}
