-- Counts one payment and returns the past as it found it; asked again for the same payment, returns the same answer.
-- fraud/state.py is the same in Python, and what each number means stands there. The constants above this line are
-- put there by fraud/store.py from fraud/windows.py.

local answer = redis.call('GET', KEYS[1])
if answer then
  return answer
end

local at_text, cents_text, card, payment = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local merchant, category, device = ARGV[5], ARGV[6], ARGV[7]
local latitude, longitude = ARGV[8], ARGV[9]
local at, cents = tonumber(at_text), tonumber(cents_text)
local member = cents_text .. '|' .. card .. '|' .. payment
local out = {}

local function integer(number)
  return string.format('%.0f', number)
end

local function put(value)
  out[#out + 1] = value
end

local function velocity(key)
  if key == '' then
    for _ = 1, 11 do put('0') end
    return
  end
  redis.call('ZADD', key, at_text, member)
  local newest = tonumber(redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')[2])
  redis.call('ZREMRANGEBYSCORE', key, '-inf', integer(newest - WINDOWS[4]))
  redis.call('ZREMRANGEBYRANK', key, 0, -(TIMELINE_PAYMENTS + 1))
  redis.call('PEXPIRE', key, TIMELINE_TTL)
  local found = redis.call('ZREVRANGEBYSCORE', key, at_text, '(' .. integer(at - WINDOWS[4]), 'WITHSCORES')
  local counts, sums = {0, 0, 0, 0}, {0, 0, 0, 0}
  local small, cards_1h, cards_24h = 0, 0, 0
  local seen = {}
  for i = 1, #found, 2 do
    local entry, age = found[i], at - tonumber(found[i + 1])
    local bar = string.find(entry, '|', 1, true)
    local amount = tonumber(string.sub(entry, 1, bar - 1))
    if age < DAY then
      local who = string.sub(entry, bar + 1, string.find(entry, '|', bar + 1, true) - 1)
      -- Newest first: a card that is met within the hour is met there before anywhere else.
      if not seen[who] then
        seen[who] = true
        cards_24h = cards_24h + 1
        if age < HOUR then cards_1h = cards_1h + 1 end
      end
      if age < BURST and amount < SMALL then small = small + 1 end
    end
    for window = 4, 1, -1 do
      if age >= WINDOWS[window] then break end
      counts[window] = counts[window] + 1
      sums[window] = sums[window] + amount
    end
  end
  for window = 1, 4 do
    put(integer(counts[window]))
    put(integer(sums[window]))
  end
  put(integer(small))
  put(integer(cards_1h))
  put(integer(cards_24h))
end

local function merchant_volume(key)
  local current, oldest = {}, {}
  for level = 1, 4 do
    current[level] = math.floor(at / CELLS[level])
    oldest[level] = math.floor((at - WINDOWS[level]) / CELLS[level])
    local cell = level .. ':' .. integer(current[level])
    redis.call('HINCRBY', key, cell .. ':n', 1)
    redis.call('HINCRBY', key, cell .. ':s', cents_text)
  end
  redis.call('PEXPIRE', key, TIMELINE_TTL)
  local sums = {n = {0, 0, 0, 0}, s = {0, 0, 0, 0}}
  local stale = {}
  local cells = redis.call('HGETALL', key)
  for i = 1, #cells, 2 do
    local level, cell, kind = string.match(cells[i], '^(%d):(%d+):(%a)$')
    level, cell = tonumber(level), tonumber(cell)
    if cell < oldest[level] then
      stale[#stale + 1] = cells[i]
    elseif cell <= current[level] then
      sums[kind][level] = sums[kind][level] + tonumber(cells[i + 1])
    end
  end
  for i = 1, #stale do
    redis.call('HDEL', key, stale[i])
  end
  for level = 1, 4 do
    put(integer(sums.n[level]))
    put(integer(sums.s[level]))
  end
end

local function declines(key)
  if key == '' then
    put('0')
  else
    put(integer(redis.call('ZCOUNT', key, '(' .. integer(at - DECLINE_WINDOW), at_text)))
  end
end

local function meet(key, thing)
  local known = redis.call('ZSCORE', key, thing)
  redis.call('ZADD', key, 'GT', at_text, thing)
  put(known and '1' or '0')
end

local function meet_device(key)
  if device == '' then put('0') else meet(key, 'd' .. device) end
end

local function trim_known(key)
  redis.call('ZREMRANGEBYRANK', key, 0, -(KNOWN_THINGS + 1))
  redis.call('PEXPIRE', key, PROFILE_TTL)
end

local function since(key)
  if key == '' then
    put('')
    return
  end
  put(redis.call('GET', key) or '')
  redis.call('SET', key, at_text, 'NX')
  redis.call('PEXPIRE', key, PROFILE_TTL)
end

local function impossible(from_latitude, from_longitude, elapsed)
  local phi, other = math.rad(from_latitude), math.rad(latitude)
  local a = math.sin((other - phi) / 2) ^ 2
    + math.cos(phi) * math.cos(other) * math.sin(math.rad(longitude - from_longitude) / 2) ^ 2
  local distance = 2 * EARTH_RADIUS * math.asin(math.sqrt(math.min(1, a)))
  local speed = distance * HOUR / math.max(math.abs(elapsed), 1000)
  return distance > IMPOSSIBLE_DISTANCE and speed > IMPOSSIBLE_SPEED
end

local function profile(key)
  local known = redis.call('HMGET', key, 'last', 'latitude', 'longitude', 'anchored')
  for i = 1, 4 do put(known[i] or '') end
  if not known[1] or at > tonumber(known[1]) then
    redis.call('HSET', key, 'last', at_text)
  end
  if latitude ~= '' then
    local anchored = known[4] and tonumber(known[4])
    if not anchored or (at >= anchored and not impossible(tonumber(known[2]), tonumber(known[3]), at - anchored)) then
      redis.call('HSET', key, 'latitude', latitude, 'longitude', longitude, 'anchored', at_text)
    end
  end
  redis.call('PEXPIRE', key, PROFILE_TTL)
end

local function history(key)
  local amounts = redis.call('LRANGE', key, 0, -1)
  for i = 1, #amounts do put(amounts[i]) end
  redis.call('LPUSH', key, cents_text)
  redis.call('LTRIM', key, 0, HISTORY_AMOUNTS - 1)
  redis.call('PEXPIRE', key, PROFILE_TTL)
end

velocity(KEYS[2])
velocity(KEYS[3])
velocity(KEYS[4])
velocity(KEYS[5])
merchant_volume(KEYS[6])
declines(KEYS[7])
declines(KEYS[8])
declines(KEYS[9])
meet_device(KEYS[10])
meet(KEYS[10], 'm' .. merchant)
meet(KEYS[10], 'c' .. category)
meet_device(KEYS[11])
meet(KEYS[11], 'k' .. card)
trim_known(KEYS[10])
trim_known(KEYS[11])
since(KEYS[12])
since(KEYS[13])
since(KEYS[14])
profile(KEYS[15])
history(KEYS[16])

answer = table.concat(out, ',')
redis.call('SET', KEYS[1], answer, 'PX', TIMELINE_TTL)
return answer
