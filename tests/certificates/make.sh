#!/bin/sh
# Makes the certificates of the tests anew, good for a hundred years. They guard nothing: the keys are public.
set -eu
cd "$(dirname "$0")"
authority() { # NAME
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 36500 -subj "/CN=$1" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign -keyout "$1.key" -out "$1.pem"
}
signed() { # NAME USAGE SUBJECT_ALTERNATIVE_NAMES
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" -keyout "$1.key" -out "$1.csr"
  printf 'basicConstraints=critical,CA:FALSE\nextendedKeyUsage=%s\nsubjectAltName=%s\n' "$2" "$3" > "$1.ext"
  openssl x509 -req -in "$1.csr" -CA authority.pem -CAkey authority.key -CAcreateserial -days 36500 \
    -extfile "$1.ext" -out "$1.pem"
  rm "$1.csr" "$1.ext"
}
authority authority
authority stranger
signed server serverAuth DNS:localhost,IP:127.0.0.1
signed elsewhere serverAuth DNS:elsewhere.example
signed client clientAuth DNS:client
rm -f authority.key stranger.key authority.srl
