-- A challenge is kept nowhere: its id says all of it, under a MAC. What is kept is the session that its report makes, which ends as it
-- begins, so that there is no second one.
CREATE TABLE challenges (
	salt      BYTEA NOT NULL,     -- of the MAC's key; another one in each store, a restored one too
	forgotten BIGINT NOT NULL  -- no challenge that ends by then is taken: its session may be forgotten
);
UPDATE sessions SET state = 'expired', sealed = NULL WHERE state = 'open' AND kind = 'snp';
