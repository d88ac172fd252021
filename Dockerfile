# One image for all programs of the platform; the compose file says which one a container runs.
FROM python:3.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY requirements.txt /build/
RUN python -m venv /opt/venv && /opt/venv/bin/pip install --require-hashes -r /build/requirements.txt

FROM python:3.11-slim-bookworm
# SoftHSM stands in for an HSM; with a real one, its vendor's PKCS#11 module takes its place (DURAPAY_HSM_MODULE).
RUN apt-get update \
    && apt-get install -y --no-install-recommends softhsm2 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --no-create-home durapay \
    && install -d -o durapay -g durapay -m 0700 /var/lib/durapay /var/lib/durapay/hsm /var/lib/durapay/data
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY config config
COPY domain domain
COPY sealing sealing
COPY store store
COPY temporal temporal
COPY embedded embedded
COPY bank bank
COPY documents documents
COPY fraud fraud
COPY identity identity
COPY ledger ledger
COPY network network
COPY notify notify
COPY onboarding onboarding
COPY settlement settlement
COPY vault vault
COPY activities activities
COPY workflows workflows
COPY workers workers
COPY api api
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER durapay
ENTRYPOINT ["python", "-m"]
