#!/usr/bin/env bash
# Installs Apache Kafka for the tests: its jars into FOLDER/kafka/libs (default: the target folder's `tools`), by Maven.
# Does nothing if they are there. Needs Java 17 and Maven, and installs Debian's packages if they are missing.
set -euo pipefail
cd "$(dirname "$0")/../.."

version=4.3.0
folder=${1:-${CARGO_TARGET_DIR:-target}/tools}/kafka
stamp=$folder/installed-$version

# need PROGRAM PACKAGE: installs Debian's package if the program is missing.
need() {
  command -v "$1" >/dev/null && return
  local root=()
  [ "$(id -u)" -eq 0 ] || root=(sudo)
  "${root[@]}" apt-get update -qq && "${root[@]}" apt-get install -qq -y "$2"
}

need java openjdk-17-jre-headless
[ -e "$stamp" ] && exit
need mvn maven

rm -rf "$folder"
mkdir -p "$folder"
cat >"$folder/pom.xml" <<END
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>segue</groupId>
  <artifactId>kafka</artifactId>
  <version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
END
(cd "$folder" && mvn -q -B dependency:copy-dependencies -DoutputDirectory=libs)
touch "$stamp"
