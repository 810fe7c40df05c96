package peerlimit

import (
	"crypto/tls"
	"errors"
	"fmt"

	"github.com/peerlimit/peerlimit/internal/secret"
)

// checkSecurity refuses what would leave a cluster open by mistake, and prepares the keys. No secret is in any error.
func (s *settings) checkSecurity() (err error) {
	if s.Secret != nil && len(s.Secret) < secret.MinLen {
		return fmt.Errorf("%d bytes of Secret are too few; it must have at least %d random bytes: is the file or variable empty?", len(s.Secret), secret.MinLen)
	}
	if len(s.AcceptSecrets) > 0 && s.Secret == nil {
		return fmt.Errorf("AcceptSecrets has %d secrets and Secret is nil: set Secret, which encrypts", len(s.AcceptSecrets))
	}
	if len(s.AcceptSecrets) > secret.MaxAccepted {
		return fmt.Errorf("AcceptSecrets has %d secrets; at most %d are allowed", len(s.AcceptSecrets), secret.MaxAccepted)
	}
	for i, accepted := range s.AcceptSecrets {
		if len(accepted) < secret.MinLen {
			return fmt.Errorf("AcceptSecrets[%d] is %d bytes long; it must be at least %d", i, len(accepted), secret.MinLen)
		}
	}
	if err := checkTLS(s.TLS); err != nil {
		return err
	}
	if s.Secret == nil && !s.Insecure {
		if err := s.checkLoopback(); err != nil {
			return err
		}
	}
	if s.encryption, err = secret.For(s.Cluster, s.Secret, s.AcceptSecrets, s.TLS); err != nil {
		return fmt.Errorf("the keys of Secret cannot be derived: %w", err)
	}
	return nil
}

// checkTLS refuses a configuration of the caller's that is not mutual.
func checkTLS(config *tls.Config) error {
	switch {
	case config == nil:
		return nil
	case len(config.Certificates) == 0 && config.GetCertificate == nil && config.GetConfigForClient == nil:
		return errors.New("neither TLS.Certificates nor TLS.GetCertificate is set: a member has to authenticate itself")
	case len(config.Certificates) == 0 && config.GetClientCertificate == nil:
		return errors.New("neither TLS.Certificates nor TLS.GetClientCertificate is set: a member has to authenticate itself when it dials")
	case config.ClientAuth != tls.RequireAndVerifyClientCert && config.VerifyConnection == nil:
		return fmt.Errorf("TLS.ClientAuth is %v and there is no VerifyConnection: set RequireAndVerifyClientCert, or anybody can take", config.ClientAuth)
	case config.InsecureSkipVerify && config.VerifyConnection == nil:
		return errors.New("without VerifyConnection, TLS.InsecureSkipVerify must be false: anybody could answer takes")
	}
	return nil
}

// checkLoopback refuses addresses that others can reach while gossip, or all, is in the clear.
func (s *settings) checkLoopback() error {
	for _, field := range []struct {
		name string
		addr string
		safe bool
	}{
		{"BindAddr", s.gossip.String(), s.gossip.Addr().IsLoopback()},
		{"RPCAddr", s.rpc.String(), s.rpc.Addr().IsLoopback()},
	} {
		if field.safe {
			continue
		}
		if s.TLS != nil {
			return fmt.Errorf("%s is %s, which is not loopback, and TLS is set without Secret, so gossip is not encrypted: set Secret, or Insecure to accept that",
				field.name, field.addr)
		}
		return fmt.Errorf("%s is %s, which is not loopback, and nothing is encrypted: set Secret, bind 127.0.0.1, or set Insecure to accept that",
			field.name, field.addr)
	}
	return nil
}
