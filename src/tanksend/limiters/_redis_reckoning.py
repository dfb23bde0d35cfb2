"""
The arithmetic of `_quota`, line by line, for the script behind `RedisLimiter`: on numbers that are kept in Redis.

A test drives both with the same inputs and compares. The state is the table ``S``; its lists are keys of their own. The
one difference: `RateControl` is asked by who has just used the last slot, and learns from that how late he was. Here
slots are asked for ahead, by anybody, so nothing is learned from the moment of asking.
"""

from __future__ import annotations

from .. import _quota

__all__ = ["CONSTANTS", "RECKONING"]

_NUMBERS = {name: value for name, value in vars(_quota).items() if name.isupper() and isinstance(value, float)}

CONSTANTS = "".join(f"local {name} = {value!r}\n" for name, value in _NUMBERS.items())
"""The constants of `_quota`, under their names."""

RECKONING = """
-- RateControl

local function floor_of(rate)
  if rate == INF then return 1.0 end
  return math.min(rate, math.max(rate / 20.0, 1.0))
end

local function pace_of(now, rate, headroom)
  local full = rate * headroom
  if S.ceiling == INF then return full end
  local since, pace = now - S.cut_at - S.recovery, nil
  if since < 0 then
    pace = S.ceiling * (1.0 + (1.0 - DIP) * (since / S.recovery) ^ 3)
  elseif rate < INF then
    pace = S.ceiling + PROBE * rate * since ^ 3
  elseif since < FORGET then
    pace = S.ceiling * (1.0 + PROBE * since ^ 3)
  else
    pace = INF
  end
  return math.min(full, math.max(floor_of(rate), pace))
end

local function is_full(now, rate, headroom)
  if now - S.cut_at >= S.recovery and pace_of(now, rate, headroom) >= rate * headroom then
    S.ceiling = INF
  end
  return S.ceiling == INF
end

-- Forgets the grants that have left the window; the next one is due no earlier than the answer.
local function look_back(now, span)
  local latest = redis.call('LINDEX', SENT, -1)
  if not latest then return now end
  local begin = math.max(now, (pair(latest)))
  while true do
    local first = redis.call('LINDEX', SENT, 0)
    if not first then break end
    local moment, count = pair(first)
    if moment + span > begin then break end
    S.load = S.load - count
    redis.call('LPOP', SENT)
  end
  return begin
end

local function fit(due, recipients, at_least, budget, span)
  local load, from = S.load, 0
  repeat
    local entries = redis.call('LRANGE', SENT, from, from + 15)
    for _, entry in ipairs(entries) do
      local moment, count = pair(entry)
      if moment + span > due then
        if load + at_least <= budget or load <= 0 then
          entries = {}
          break
        end
        due = moment + span
      end
      load = load - count
    end
    from = from + 16
  until #entries == 0
  local room = math.min(recipients, budget - load)
  room = room < 0 and math.ceil(room) or math.floor(room)
  return due, math.max(at_least, room)
end

local function fit_pack(due, recipients, at_least, budget, span)
  local whole = math.max(at_least, math.floor(math.min(recipients, budget)))
  local full = fit(due, whole, whole, budget, span)
  local some, fitting = fit(due, whole, at_least, budget, span)
  if full - some <= PATCH or redis.call('LLEN', SENT) >= 3 * math.ceil(budget / whole) then return full, whole end
  return some, fitting
end

local function note(due, recipients)
  S.load = S.load + recipients
  local latest = redis.call('LINDEX', SENT, -1)
  if latest then
    local moment, count = pair(latest)
    if whole(due, GRAIN) == whole(moment, GRAIN) then
      redis.call('LSET', SENT, -1, text(due) .. ':' .. text(count + recipients))
      return
    end
  end
  redis.call('RPUSH', SENT, text(due) .. ':' .. text(recipients))
end

local function grant(now, recipients, at_least, rate, headroom, divisible)
  is_full(now, rate, headroom)
  local pace, strict = pace_of(now, rate, headroom), now < S.strict_until
  local due = math.max(S.paid, look_back(now, SPAN / headroom + MARGIN))
  local second = rate < INF and math.ceil(rate) or rate
  if divisible then
    local budget = (strict or rate == INF) and pace / headroom or second
    due, recipients = fit_pack(due, recipients, at_least, budget, SPAN / headroom + (strict and MARGIN or 0.0))
  elseif strict then
    due, recipients = fit(due, recipients, at_least, pace / headroom, SPAN / headroom)
  elseif recipients == 1 then
    due = fit(due, 1, 1, second, SPAN / headroom)
  end
  local interval, heavy = 1.0 / pace, strict and not divisible
  S.before, S.price = S.paid, heavy and 0.0 or interval
  local begun = due - S.paid <= LATE and S.paid or due
  S.paid = begun + (heavy and interval or recipients * interval)
  S.serial = S.serial + 1
  S.open = recipients
  note(due, recipients)
  return due, recipients
end

local function give_back_time(serial, recipients)
  if serial ~= S.serial or S.open == 0 then return end
  recipients = math.min(recipients, S.open)
  S.paid = recipients == S.open and S.before or S.paid - recipients * S.price
  local moment, count = pair(redis.call('RPOP', SENT))
  if count > recipients then redis.call('RPUSH', SENT, text(moment) .. ':' .. text(count - recipients)) end
  S.load = S.load - recipients
  S.open = 0
end

local function fade(now)
  local left = math.exp(math.min(0.0, S.faded_at - now) / FADE)
  S.taken, S.refused, S.faded_at = S.taken * left, S.refused * left, now
end

local function is_harmless(now, recipients)
  if recipients > 1 and now >= S.strict_until then
    S.strict_until = now + STRICT_FOR
    return true
  end
  local since = now - S.suspect_at
  if since > SUSPICION then
    S.suspect_at = now
    return true
  end
  return since < BURST
end

local function cut(now, pace, rate)
  if pace == INF then pace = S.taken end
  if SAME * S.ceiling <= pace then
    S.recovery = math.min(PATIENCE, S.recovery * 1.5)
  else
    S.recovery = RECOVERY
  end
  local share = (S.refused - 1.0) / math.max(1.0, S.taken + S.refused - 1.0)
  if share >= HEAVY then
    pace = pace * (1.0 - share)
    S.recovery = RECOVERY
  elseif now - S.cut_at < QUICK then
    pace = pace * DIP
  elseif S.ceiling < pace then
    pace = (pace + S.ceiling) / 2.0
  end
  S.ceiling, S.cut_at, S.suspect_at = math.max(pace, floor_of(rate)), now, -INF
  S.taken, S.refused = 0.0, 0.0
end

local function throttled(now, recipients, rate, headroom)
  if recipients > rate then
    S.strict_until = now + STRICT_FOR
    return
  end
  fade(now)
  S.refused = S.refused + recipients
  if is_full(now, rate, headroom) and is_harmless(now, recipients) then return end
  if now - S.cut_at >= CUT_EVERY then cut(now, pace_of(now, rate, headroom), rate) end
end

-- DailyWindow

local function spent(now)
  if S.ours_to <= now and S.ours_to > -INF then
    redis.call('DEL', OURS)
    S.ours_sum, S.ours_from, S.ours_to = 0, INF, -INF
  end
  while S.ours_from <= now do
    local count = redis.call('HGET', OURS, text(S.ours_from))
    if count then
      S.ours_sum = S.ours_sum - number(count)
      redis.call('HDEL', OURS, text(S.ours_from))
    end
    S.ours_from = S.ours_from + BUCKET
  end
  while S.others_from <= now do
    local _, count = pair(redis.call('LPOP', OTHERS))
    S.others_sum = S.others_sum - count
    local first = redis.call('LINDEX', OTHERS, 0)
    S.others_from = first and pair(first) or INF
  end
  return S.ours_sum + S.others_sum
end

local function room_at(now, recipients, kept)
  local over = spent(now) + recipients + kept - S.quota
  local moment = math.max(now, S.shut_until)
  if over <= 0 then return moment end
  local entries, ours = {}, redis.call('HGETALL', OURS)
  for i = 1, #ours, 2 do entries[#entries + 1] = {number(ours[i]), number(ours[i + 1])} end
  for _, entry in ipairs(redis.call('LRANGE', OTHERS, 0, -1)) do entries[#entries + 1] = {pair(entry)} end
  table.sort(entries, function(a, b) return a[1] < b[1] or a[1] == b[1] and a[2] < b[2] end)
  for _, entry in ipairs(entries) do
    over = over - entry[2]
    if over <= 0 then return math.max(moment, entry[1]) end
  end
  return INF
end

local function take(now, at, recipients)
  local bucket = (whole(at, BUCKET) + 1) * BUCKET + DAY
  if now - S.flew_at > 2 * BUCKET then S.flying = 0 end
  S.flew_at = math.max(S.flew_at, at)
  S.flying = S.flying + recipients
  S.ours_sum = S.ours_sum + recipients
  S.ours_from, S.ours_to = math.min(S.ours_from, bucket), math.max(S.ours_to, bucket)
  redis.call('HINCRBY', OURS, text(bucket), recipients)
  return bucket
end

local function give_back_count(bucket, recipients)
  S.flying = math.max(0, S.flying - recipients)
  local returned = math.min(number(redis.call('HGET', OURS, text(bucket)) or '0'), recipients)
  if returned > 0 then
    redis.call('HINCRBY', OURS, text(bucket), -returned)
    S.ours_sum = S.ours_sum - returned
  end
end

local function answered(recipients, counted)
  if counted then
    S.flying = math.max(0, S.flying - recipients)
  elseif S.ours_to > -INF then
    give_back_count(S.ours_to, recipients)
  end
end

local function set_others(now, others)
  local change = others - S.others_sum
  if change > 0 then redis.call('RPUSH', OTHERS, text(now + DAY) .. ':' .. text(change)) end
  while change < 0 do
    local first = redis.call('LPOP', OTHERS)
    if not first then break end
    local gone, count = pair(first)
    if count + change > 0 then redis.call('LPUSH', OTHERS, text(gone) .. ':' .. text(count + change)) end
    change = change + count
  end
  S.others_sum = others
  local first = redis.call('LINDEX', OTHERS, 0)
  S.others_from = first and pair(first) or INF
end

local function quota_refused(now, recipients, again)
  if S.quota == INF then
    S.shut_until = math.max(S.shut_until, again)
    return
  end
  local missing = S.quota - recipients + 1 - spent(now)
  if missing > 0 then set_others(now, S.others_sum + missing) end
end
"""
