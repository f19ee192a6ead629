#!/bin/bash
# Makes a certificate authority of your own and a certificate for each host: certificates.sh FOLDER HOST...
#
# HOST is a name or an address under which clients reach a node. The authority is made once; called again with other
# hosts, it signs theirs too. Keep FOLDER/ca.key away from every server: whoever has it is the authority.
set -euo pipefail
folder="${1:?a folder, then the hosts}"
shift
mkdir -p "$folder"
umask 077

if [[ ! -e $folder/ca.key ]]; then
    openssl req -x509 -newkey rsa:3072 -sha256 -nodes -days 3650 -subj "/CN=Shepherd's own authority" \
        -addext "keyUsage=critical,keyCertSign,cRLSign" -keyout "$folder/ca.key" -out "$folder/ca.pem" 2>/dev/null
fi
for host in "$@"; do
    kind=DNS
    [[ $host =~ ^[0-9.]+$|: ]] && kind=IP
    openssl req -newkey rsa:3072 -sha256 -nodes -subj "/CN=$host" -addext "subjectAltName=$kind:$host" \
        -addext "extendedKeyUsage=serverAuth" -keyout "$folder/$host.key" -out "$folder/$host.csr" 2>/dev/null
    openssl x509 -req -in "$folder/$host.csr" -CA "$folder/ca.pem" -CAkey "$folder/ca.key" -CAcreateserial \
        -days 825 -sha256 -copy_extensions copy \
        -extfile <(printf 'subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n') -out "$folder/$host.pem" 2>/dev/null
    rm "$folder/$host.csr"
    echo "$folder/$host.pem"
done
chmod 644 "$folder"/*.pem
