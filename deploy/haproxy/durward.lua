-- Asks Durward about a request (forward-auth) and carries its answer out.
--
--   http-request lua.durward ADDRESS NAME,NAME
--
-- ADDRESS is forward_auth.listen, the NAMEs are the identity headers. Whatever is not a clear 200 is
-- a refusal, an answer that does not come too.

local TIMEOUT = 5000 -- milliseconds

-- What is between two neighbours, and what this script says itself.
local NOT_ASKED = {
    ["connection"] = true, ["content-length"] = true, ["expect"] = true, ["host"] = true,
    ["keep-alive"] = true, ["proxy-connection"] = true, ["te"] = true, ["trailer"] = true,
    ["transfer-encoding"] = true, ["upgrade"] = true,
    ["x-forwarded-for"] = true, ["x-forwarded-host"] = true, ["x-forwarded-method"] = true,
    ["x-forwarded-proto"] = true, ["x-forwarded-uri"] = true,
}

-- What is said of rate limits, and the variable that has it.
local SAID = {
    ["ratelimit"] = "txn.durward_ratelimit",
    ["ratelimit-policy"] = "txn.durward_ratelimit_policy",
}

-- HAProxy counts values from 0.
local function values(list)
    local copied = {}
    for index = 0, #list do
        if list[index] ~= nil then
            table.insert(copied, list[index])
        end
    end
    return copied
end

local function question(txn)
    local headers = {}
    local received = txn.http:req_get_headers()
    for name, list in pairs(received) do
        if not NOT_ASKED[name] then
            headers[name] = values(list)
        end
    end
    headers["x-forwarded-method"] = { txn.f:method() }
    headers["x-forwarded-uri"] = { txn.f:pathq() }
    headers["x-forwarded-host"] = received["host"] and values(received["host"]) or {}
    headers["x-forwarded-for"] = { txn.f:src() }
    return headers
end

local function refuse(txn, status, answer)
    local reply = txn:reply({ status = status })
    for name, list in pairs(answer and answer.headers or {}) do
        if name == "content-type" or name == "www-authenticate" or name == "x-durward-reason"
            or name == "allow" or name == "retry-after" or name == "ratelimit" or name == "ratelimit-policy" then
            reply:add_header(name, list[0])
        end
    end
    reply:add_header("cache-control", "no-store")
    reply:set_body(answer and answer.body or "")
    txn:done(reply)
end

core.register_action("durward", { "http-req" }, function(txn, address, names)
    local answer = core.httpclient():get({
        url = "http://" .. address .. "/auth/haproxy",
        headers = question(txn),
        timeout = TIMEOUT,
    })
    if answer == nil or answer.status == nil or answer.status < 200 or answer.status > 599 then
        return refuse(txn, 503, nil)
    end
    if answer.status ~= 200 then
        -- A refusal is an error, whatever it was meant to be.
        return refuse(txn, answer.status >= 400 and answer.status or 503, answer)
    end
    for name in string.gmatch(names, "[^,]+") do
        local list = answer.headers[string.lower(name)]
        txn.http:req_del_header(name)
        if list == nil then
            -- Every identity header is in every answer of Durward's: this is somebody else's.
            return refuse(txn, 503, nil)
        end
        if list[0] ~= "" then
            txn.http:req_add_header(name, list[0])
        end
    end
    -- For the answer to the client.
    for name, variable in pairs(SAID) do
        if answer.headers[name] ~= nil then
            txn:set_var(variable, answer.headers[name][0])
        end
    end
end, 2)
