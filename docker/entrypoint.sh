#!/bin/sh
# Puts the shipped files where a service looks for them, which may be volumes, then becomes the service.
set -eu
shipped=/opt/mole/shipped
core=/app/moe_router

seed() { python -m moe_router.assets.seed "$@"; }

gating() {
  # The encoder and the heads fit only each other: one unit.
  seed --together "$shipped/gating_models" "$core/gating/models"
  seed "$shipped/language_models" "$core/models"
}

case " $* " in
*" app.main:app "*)
  gating
  [ "${SERVICE_MODE:-coordinator}" != monolithic ] || seed "$shipped/adapter_weights" "$core/experts/llms/adapters"
  ;;
*" expert_worker.main:app "*)
  seed "$shipped/adapter_weights" "$core/experts/llms/adapters"
  ;;
esac
for folder in "$HOME/.cache/huggingface" "$HOME/.cache/fasttext" /app/state; do
  [ -w "$folder" ] || echo "entrypoint: $folder cannot be written by user $(id -u); see docs/deploy.md" >&2
done
exec "$@"
