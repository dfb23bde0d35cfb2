"""
The one script behind `RedisLimiter`, and how to read it.

Its arithmetic stands in `_redis_reckoning`. What comes on top of that, all of it about several processes:

**Time** is the server's, or an argument, and never goes back: where the clock did, the difference is put into
``base``, so that nobody waits for it to catch up and nothing is granted twice.

**Lost state.** Where there is no state, or an older one than the caller has seen (``serial``), what was granted in the
last second is not known. So nothing is granted for one second.

**Lanes.** A slot that has been promised cannot be called back, so bulk slots are not promised far ahead. Whoever has
got one is also told when to ask for the next: he has a *place* in a line (``places``), which promises no time. He asks
again `lead` seconds before his turn, and gets a slot then. A transactional demand does not stand in that line, it gets
the next slot at once; whoever asks after that, and would be due much later than he thought, keeps his place and is told
to ask later. Each place that was left is forgotten soon.

Keys: the state (a hash), the grants of the last second (a list), our recipients of the day by bucket (a hash), those
of others (a list), the places (a hash).
"""

from __future__ import annotations

from ._redis_reckoning import CONSTANTS, RECKONING

__all__ = ["KEYS", "SCRIPT"]

KEYS = ("state", "sent", "ours", "others", "places")
"""Ends of the names of the keys, in the order in which the script expects them."""

_STATE = """
local INF = math.huge
local LOST = 1.0 -- seconds for which nothing is granted where the state was lost
local LEAP = 1e6 -- serials that no caller can have seen
local LINGER = 0.1 -- seconds after its turn at which a place is forgotten
local LEASE = 0.02 -- seconds of the rate that may be granted at once
local LEAST_LEASE, MOST_LEASE = 4, 50 -- recipients: so nothing is leased below 200 a second
local KEEP = 26 * 3600 -- seconds for which unused state is kept
local ASKING = 10.0 -- seconds after which somebody else asks SES, when the one who was to do it has not come back

-- The state. Infinities are written out: not every C library reads its own.

local DEFAULTS = {
  base = 0, last = -INF, serial = 0, throttles = 0,
  paid = -INF, ceiling = INF, cut_at = -INF, recovery = RECOVERY, suspect_at = -INF,
  taken = 0, refused = 0, faded_at = -INF, strict_until = -INF, load = 0, open = 0, price = 0, before = -INF,
  quota = INF, ours_sum = 0, ours_from = INF, ours_to = -INF, others_sum = 0, others_from = INF,
  flying = 0, flew_at = -INF, shut_until = -INF,
  rate = 0, read_again = -INF, tried_at = -INF, asked_at = -INF,
}

local function text(number)
  if number == INF then return 'inf' elseif number == -INF then return '-inf' end
  return string.format('%.17g', number)
end

local function number(value)
  if value == 'inf' then return INF elseif value == '-inf' then return -INF end
  return tonumber(value)
end

local function pair(entry)
  local colon = string.find(entry, ':', 1, true)
  return number(string.sub(entry, 1, colon - 1)), number(string.sub(entry, colon + 1))
end

local STATE, SENT, OURS, OTHERS, PLACES = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local S, before = {}, {}

local function load_state()
  local found = redis.call('HGETALL', STATE)
  for i = 1, #found, 2 do
    before[found[i]] = found[i + 1]
    S[found[i]] = number(found[i + 1]) or found[i + 1]
  end
  for name, value in pairs(DEFAULTS) do
    if S[name] == nil then S[name] = value end
  end
end

local function save_state()
  local changed = {}
  for name, value in pairs(S) do
    local new = type(value) == 'number' and text(value) or value
    if new ~= before[name] then
      changed[#changed + 1] = name
      changed[#changed + 1] = new
    end
  end
  if #changed > 0 then redis.call('HSET', STATE, unpack(changed)) end
  for _, key in ipairs(KEYS) do redis.call('EXPIRE', key, KEEP) end
end

-- Floor division as Python does it: by the remainder, not by a quotient that was rounded up.
local function whole(a, b)
  local rest = math.fmod(a, b)
  if rest < 0 then rest = rest + b end
  return math.floor((a - rest) / b + 0.5)
end
"""

_OPERATIONS = """
-- Arguments, which every call has: the operation; the time, or nothing; the latest serial that the caller knows; the
-- rate, or nothing where it is SES's to say; a rate for when SES has not said it; whether the caller can ask SES; the
-- headroom. And what has become of the caller's requests since his last call: recipients that SES took, those that
-- may have been counted for the day, those that were not, and those he has sent (or not sent) beside this script.

local operation, seen, headroom = ARGV[1], number(ARGV[3]), number(ARGV[7])
load_state()

local function server_time()
  local time = redis.call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1e6
end

local v = (number(ARGV[2]) or server_time()) + S.base
if v < S.last then
  S.base = S.base + (S.last - v)
  v = S.last
end
S.last = v

if S.serial < seen or not before.serial then
  -- Lost, or older than what the caller has seen.
  S.serial = math.max(S.serial, seen) + LEAP
  S.paid, S.open, S.read_again, S.asked_at = math.max(S.paid, v + LOST), 0, -INF, -INF
  redis.call('DEL', PLACES)
end

local rate = number(ARGV[4])
if not rate then
  if S.rate > 0 then
    rate = S.rate
  elseif ARGV[6] == 'asks' and S.read_again == -INF then
    rate = 0 -- nobody has asked yet
  else
    rate = number(ARGV[5])
  end
end
local took, counting, missed, beside = number(ARGV[8]), number(ARGV[9]), number(ARGV[10]), number(ARGV[11])
if took > 0 then
  fade(v)
  S.taken = S.taken + took
end
if counting > 0 then answered(counting, true) end
if missed > 0 then answered(missed, false) end
if beside > 0 then take(v, v, beside) elseif beside < 0 then answered(-beside, false) end

local function answer(kind, ...)
  local pace = rate > 0 and pace_of(v, rate, headroom) or 0
  local due = ARGV[6] == 'asks' and v >= S.read_again and v - S.asked_at >= ASKING and 1 or 0
  local values = {kind, v, S.serial, rate, pace, S.quota, spent(v), S.throttles, due, S.words or '', ...}
  for i, value in ipairs(values) do
    if type(value) == 'number' then values[i] = text(value) end
  end
  save_state()
  return values
end

-- When everybody in front of a place will have been served; an old place counts those who stood before it.
local function turn(place_turn)
  local ahead, all = 0, redis.call('HGETALL', PLACES)
  for i = 1, #all, 2 do
    local at, weight = pair(all[i + 1])
    if at + LINGER < v then
      redis.call('HDEL', PLACES, all[i])
    elseif at < place_turn then
      ahead = ahead + weight
    end
  end
  return math.max(v, S.paid) + ahead / pace_of(v, rate, headroom)
end

local function stand_in_line(place, at, recipients)
  redis.call('HSET', PLACES, place, text(at) .. ':' .. text(recipients))
  return at
end

local function reserve()
  local recipients, at_least, uncounted = number(ARGV[12]), number(ARGV[13]), number(ARGV[14])
  local bulk, kept, lead = ARGV[15] == 'bulk', number(ARGV[16]), number(ARGV[17])
  local old_place, new_place, divisible = ARGV[18], ARGV[19], ARGV[20] == 'divisible'
  if rate == 0 then return answer('unknown') end
  local counted = recipients - uncounted
  local room = counted > 0 and room_at(v, counted, kept) or v
  if room > v then return answer('spent', room) end
  local pace = pace_of(v, rate, headroom)
  local stood = redis.call('HGET', PLACES, old_place)
  if stood then redis.call('HDEL', PLACES, old_place) end
  if bulk and S.paid - v > lead + 0.5 / pace then
    return answer('later', stand_in_line(new_place, turn(stood and pair(stood) or INF), recipients))
  end
  local lease = math.floor(math.min(pace / headroom * LEASE, MOST_LEASE, S.quota))
  if lease >= LEAST_LEASE and lease > recipients and v >= S.strict_until and room_at(v, lease, kept) <= v then
    recipients, at_least, counted, divisible = lease, lease, lease, false
  end
  local due, given = grant(v, recipients, at_least, rate, headroom, divisible)
  counted = math.min(counted, given)
  local bucket = counted > 0 and take(v, due, counted) or 0
  local at = bulk and stand_in_line(new_place, turn(INF), given) or 0
  return answer('slot', due, given, S.price, bucket, counted, at)
end

local function release()
  local serial, recipients, bucket, counted = number(ARGV[12]), number(ARGV[13]), number(ARGV[14]), number(ARGV[15])
  redis.call('HDEL', PLACES, ARGV[16])
  give_back_time(serial, recipients)
  if counted > 0 then give_back_count(bucket, counted) end
  return answer('done')
end

local function refuse()
  local kind, recipients, seconds = ARGV[12], number(ARGV[13]), number(ARGV[14])
  if kind == 'quota' then
    quota_refused(v, recipients, v + seconds)
  else
    S.throttles = S.throttles + 1
    if kind == 'pause' then
      S.paid, S.open = math.max(S.paid, v + seconds), 0
    elseif rate > 0 then
      throttled(v, recipients, rate, headroom)
    end
  end
  return answer('done')
end

-- Who is to ask SES? One, when its figures are due; or, where the quota is spent, so long after the last attempt.
local function claim()
  local after = number(ARGV[12])
  local due = after and math.min(S.read_again, S.tried_at + after) or S.read_again
  if S.read_again == INF or v < due or v - S.asked_at < ASKING then return answer('done') end
  S.asked_at, S.tried_at = v, v
  spent(v)
  return answer('ask', math.max(0, S.ours_sum - S.flying))
end

-- What SES has said: for how long that is good; the rate, or nothing where it has not said it; the quota, what is spent
-- of it, what of that is ours; and words for people, which are kept as they are.
local function learn()
  S.read_again, S.asked_at = v + number(ARGV[12]), -INF
  if number(ARGV[13]) then
    S.rate, S.quota, S.shut_until, S.words = number(ARGV[13]), number(ARGV[14]), -INF, ARGV[17]
    spent(v)
    set_others(v, math.max(0.0, number(ARGV[15]) - number(ARGV[16])))
  end
  return answer('done')
end

local OPERATIONS = {reserve = reserve, release = release, refuse = refuse, claim = claim, learn = learn}
return OPERATIONS[operation]()
"""

SCRIPT = CONSTANTS + _STATE + RECKONING + _OPERATIONS
