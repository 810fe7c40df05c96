package transport

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"math/big"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fakeServer accepts connections, completes the handshake as testServer, lets
// serve do what it likes and hangs up.
func fakeServer(t *testing.T, network Network, serve func(*rawPeer)) Peer {
	t.Helper()
	return fakeListener(t, network, func(p *rawPeer) {
		if _, err := readHandshake(p); err != nil {
			return
		}
		reply := mustEncode(t, helloReply{version: Version, cluster: testCluster, name: testServer})
		if _, err := p.Write(reply); err == nil {
			serve(p)
		}
	})
}

// fakeListener accepts connections and leaves everything to serve.
func fakeListener(t *testing.T, network Network, serve func(*rawPeer)) Peer {
	t.Helper()
	listener, err := network.Listen("127.0.0.1:0")
	require.NoError(t, err)
	ended := make(chan struct{})
	var running sync.WaitGroup
	t.Cleanup(func() {
		listener.Close()
		close(ended)
		running.Wait()
	})
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer conn.Close()
				serve(&rawPeer{Conn: conn, t: t, ended: ended})
			})
		}
	})
	return Peer{Name: testServer, Addr: listener.Addr().String()}
}

// hugeLength announces a frame of four gigabytes.
var hugeLength = []byte{0xFF, 0xFF, 0xFF, 0xFF}

func TestServerDropsHostileClients(t *testing.T) {
	good := mustEncode(t, hello{minVersion: 1, maxVersion: 1, cluster: testCluster, from: "raw", to: testServer})
	for name, send := range map[string][]byte{
		"another protocol":    []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
		"zeroes":              make([]byte, 10_000),
		"oversized handshake": append([]byte(handshakeMagic), 0xFF, 0xFF),
		"empty handshake":     append([]byte(handshakeMagic), 0, 0),
		"cut names":           append([]byte(handshakeMagic), 0, 4, 1, 1, 200, 'x'),
		"frames at once":      appendFrame(nil, kindRequest, 1, []byte("who needs handshakes")),
		"half a handshake":    good[:len(good)-1], // and then nothing: until HandshakeTimeout
		"nothing":             nil,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := newMemNetwork()
				var refused []error
				_, peer := startServer(t, network, func(c *ServerConfig) {
					c.OnRefused = func(_ net.Addr, err error) { refused = append(refused, err) }
				})
				hostile := dialRaw(t, network, peer.Addr)
				began := time.Now()
				hostile.send(send)
				hostile.expectClosed()
				assert.LessOrEqual(t, time.Since(began), DefaultHandshakeTimeout)
				synctest.Wait()
				assert.Len(t, refused, 1)
				mustCall(t, startClient(t, network, nil), peer)
			})
		})
	}
}

// One byte now and then must not keep a connection alive.
func TestServerDropsTrickledHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		_, peer := startServer(t, network, nil)
		hostile := dialRaw(t, network, peer.Addr)
		began := time.Now()
		trickle(hostile) // until it is hung up on
		assert.LessOrEqual(t, time.Since(began), DefaultHandshakeTimeout+100*time.Millisecond)
		assert.GreaterOrEqual(t, time.Since(began), DefaultHandshakeTimeout)
	})
}

func TestServerDropsHostileFrames(t *testing.T) {
	for name, send := range map[string][]byte{
		"length 0xFFFFFFFF": append(hugeLength, "and then some"...),
		"length 0":          {0, 0, 0, 0, 0, 0, 0, 0},
		"length 4":          {0, 0, 0, 4, 1, 0, 0, 0},
		"just too long":     binary.BigEndian.AppendUint32(nil, MaxFrame+1),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := newMemNetwork()
				_, peer := startServer(t, network, nil)
				hostile := dialGreeted(t, network, peer.Addr)
				hostile.send(send)
				hostile.expectClosed()
				mustCall(t, startClient(t, network, nil), peer)
			})
		})
	}
}

// Frames that make no sense, or not yet, are skipped; a half one is waited for.
func TestServerSkipsUnknownFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		_, peer := startServer(t, network, nil)
		p := dialGreeted(t, network, peer.Addr)
		for _, kind := range []frameKind{0, kindResponse, kindPong, kindBusy, kindTooLarge, 99, 255} {
			p.send(appendFrame(nil, kind, 1, []byte("payload")))
		}
		request := appendFrame(nil, kindRequest, 7, []byte("still there?"))
		p.send(request[:10])
		time.Sleep(10 * time.Second)
		p.send(request[10:])
		p.send(appendFrame(nil, kindPing, 8, nil))

		reader := newFrameReader(p)
		f, err := p.receive(reader)
		require.NoError(t, err)
		assert.Equal(t, frame{kindResponse, 7, []byte("still there?")}, f)
		f, err = p.receive(reader)
		require.NoError(t, err)
		assert.Equal(t, frame{kindPong, 8, []byte{}}, f)
	})
}

func TestClientSurvivesHostileHandshake(t *testing.T) {
	for name, c := range map[string]struct {
		serve  func(*rawPeer)
		status HandshakeStatus
	}{
		"hangs up":         {func(*rawPeer) {}, HandshakeUnfinished},
		"another protocol": {answerHello([]byte("SSH-2.0-OpenSSH_9.9\r\n")), HandshakeProtocol},
		"oversized":        {answerHello(append([]byte(handshakeMagic), 0xFF, 0xFF)), HandshakeProtocol},
		"says nothing":     {(*rawPeer).stay, HandshakeUnfinished},
		"endless":          {trickle, HandshakeUnfinished},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := newMemNetwork()
				peer := fakeListener(t, network, c.serve)
				client := startClient(t, network, nil)
				began := time.Now()
				_, err := client.Call(t.Context(), peer, nil, time.Minute)
				require.ErrorIs(t, err, ErrUnreachable)
				var refused *HandshakeError
				require.ErrorAs(t, err, &refused)
				assert.Equal(t, c.status, refused.Status)
				assert.LessOrEqual(t, time.Since(began), DefaultConnectTimeout)
			})
		})
	}
}

// answerHello waits for the client's handshake and answers with what it is given.
func answerHello(answer []byte) func(*rawPeer) {
	return func(p *rawPeer) {
		if _, err := readHandshake(p); err == nil {
			p.Write(answer)
		}
	}
}

// trickle sends the largest handshake there may be, a byte now and then.
func trickle(p *rawPeer) {
	p.Write(append([]byte(handshakeMagic), maxHandshake>>8, 0))
	for {
		if _, err := p.Write([]byte{1}); err != nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func TestClientDropsHostileFrames(t *testing.T) {
	for name, send := range map[string][]byte{
		"length 0xFFFFFFFF": append(hugeLength, "and then some"...),
		"length 0":          {0, 0, 0, 0, 0, 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := newMemNetwork()
				peer := fakeServer(t, network, func(p *rawPeer) {
					p.Read(make([]byte, 100))
					p.Write(send)
					p.stay()
				})
				began := time.Now()
				_, err := startClient(t, network, nil).Call(t.Context(), peer, nil, time.Minute)
				require.ErrorIs(t, err, ErrBroken)
				assert.Zero(t, time.Since(began))
			})
		})
	}
}

// Responses to calls that were never made, and kinds that make no sense, must not
// disturb those that were.
func TestClientSkipsUnknownFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		peer := fakeServer(t, network, func(p *rawPeer) {
			reader := newFrameReader(p)
			for {
				f, err := p.receive(reader)
				if err != nil {
					return
				}
				var out []byte
				for id := range uint32(200) {
					if id != f.id {
						out = appendFrame(out, kindResponse, id, []byte("forged"))
					}
				}
				for _, kind := range []frameKind{0, kindRequest, kindOneWay, kindPing, kindPong, 99, 255} {
					out = appendFrame(out, kind, f.id, []byte("noise"))
				}
				out = appendFrame(out, kindResponse, f.id, f.payload)
				out = appendFrame(out, kindResponse, f.id, []byte("said twice"))
				p.Write(out)
			}
		})
		client := startClient(t, network, nil)
		for range 100 {
			mustCall(t, client, peer)
		}
	})
}

// Before a peer has authenticated, it may say no more than a handshake needs: a
// certificate of 100 kB, which crypto/tls would take, is cut off.
func TestServerBoundsWhatComesBeforeTheHandshake(t *testing.T) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	certificate := func(extra int) tls.Certificate {
		template := &x509.Certificate{
			SerialNumber:    big.NewInt(1),
			ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: make([]byte, extra)}},
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		require.NoError(t, err)
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	}
	refused := make(chan error, 1)
	_, peer := startServer(t, TCP{}, func(c *ServerConfig) {
		c.WrapConn = func(conn net.Conn) net.Conn {
			return tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{certificate(1)}, ClientAuth: tls.RequireAnyClientCert})
		}
		c.OnRefused = func(_ net.Addr, err error) { refused <- err }
	})
	dial := func(extra int) connecting {
		return startClient(t, TCP{}, func(c *ClientConfig) {
			c.WrapConn = func(conn net.Conn) net.Conn {
				return tls.Client(conn, &tls.Config{Certificates: []tls.Certificate{certificate(extra)}, InsecureSkipVerify: true})
			}
		})
	}
	client := dial(10_000)
	for range 100 { // what comes after the handshake has no such bound
		_, err = client.Call(t.Context(), peer, make([]byte, 10_000), time.Minute)
		require.NoError(t, err)
	}
	_, err = dial(100_000).Call(t.Context(), peer, nil, time.Minute)
	require.ErrorIs(t, err, ErrUnreachable)
	require.ErrorIs(t, <-refused, errLongHandshake)
}

// Of too many connections without a handshake yet, the oldest one of the
// host that has most goes.
func TestAFloodDropsItsOwnConnections(t *testing.T) {
	server := &Server{greeting: make(map[*serverConn]struct{})}
	add := func(host string, number uint64) *serverConn {
		c := &serverConn{source: netip.MustParsePrefix(host + "/32"), number: number}
		server.greeting[c] = struct{}{}
		return c
	}
	honest := add("10.0.0.1", 1)
	oldest, second := add("10.0.0.2", 2), add("10.0.0.2", 3)
	assert.Same(t, oldest, server.longestGreeting())
	delete(server.greeting, oldest)
	assert.Same(t, honest, server.longestGreeting(), "each has one")
	delete(server.greeting, honest)
	assert.Same(t, second, server.longestGreeting())
}

// A connection that takes a place waits until the one before has had time for a handshake, but
// not while one becomes free.
func TestAGreetingHasItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNetwork()
		_, peer := startServer(t, network, func(c *ServerConfig) { c.MaxUnauthenticated = 2 })
		began := time.Now()
		first, second := dialRaw(t, network, peer.Addr), dialRaw(t, network, peer.Addr)
		third := dialRaw(t, network, peer.Addr) // has no place yet
		time.Sleep(greetingGrace / 2)
		second.Close()
		mustCall(t, startClient(t, network, nil), peer) // after the third has had its time
		assert.Less(t, time.Since(began), 2*greetingGrace)
		first.expectClosed()
		dialRaw(t, network, peer.Addr)
		dialRaw(t, network, peer.Addr)
		third.expectClosed()
		assert.GreaterOrEqual(t, time.Since(began), greetingGrace)
	})
}
